// The shelf of saved styles: the question before one is deleted, and where the focus goes then.

import { confirmed as ask } from './confirm.js'

const tiles = () => [...document.querySelectorAll('#style-shelf [data-style]')]

/** Whether a style is to be deleted. */
export const confirmed = (key) => {
  const name = tiles().find((one) => one.dataset.style === key)?.dataset.name
  return ask('delete-style', 'with-style', { name })
}

/** The button that was pressed has gone: the focus goes to what is left. */
export const refocus = () => {
  if (document.activeElement !== document.body && document.activeElement.offsetParent) return
  const place = tiles()[0] ?? document.querySelector('#style-name :is(input, textarea)')
  place?.focus()
}
