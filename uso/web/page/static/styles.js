// The shelf of saved styles: marks those that the fields hold, asks before one is deleted, and keeps the focus near.

import { confirmed as ask } from './confirm.js'
import { reveal as scroll } from './show.js'

const tiles = () => [...document.querySelectorAll('#style-shelf [data-style]')]

let held = []
/** Mark the styles that the fields hold, by their keys; the same again on another shelf. */
export const mark = (keys = held) => {
  held = keys
  for (const tile of tiles())
    if (held.includes(tile.dataset.style)) tile.setAttribute('aria-current', 'true')
    else tile.removeAttribute('aria-current')
}

/** Bring the buttons for the style that was chosen into sight. */
export const reveal = () => {
  const actions = document.querySelector('#style-actions')
  if (actions) scroll(actions)
}

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
