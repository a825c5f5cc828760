// With "Keep input size" the sliders show the size of the content image; without it, the size that was there before.

import { appears } from './show.js'

let own = null
let kept = null

const keeps = () => document.querySelector('#keep input')?.checked

/** The sliders show another size: whose is it? */
export const noteSize = (width, height) => {
  if (keeps()) kept = [width, height]
  else own = [width, height]
}

/** What the sliders show once "Keep input size" has been switched: [width, height]. */
export const ownSize = (keep, width, height) => {
  const size = [width, height]
  return !keep && own && kept?.join() === size.join() ? own : size
}

const shown = (id) => Number(document.querySelector(`#${id} input[type="number"]`)?.value)

appears('#keep input', 20_000).then(() => own ?? noteSize(shown('width'), shown('height')))
