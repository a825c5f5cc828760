// After an example, a restored picture or a Repeat has filled in the fields: goes there, marks what has changed, says it,
// and offers to run it. Fields are compared by the values that Gradio gives: those in folded parts are not on the page.

import { generate } from './keys.js'
import { past } from './refusals.js'
import { flash, show } from './show.js'
import { say } from './words.js'

/** A value of a field; of a file, where it is. */
const plain = (value) => value?.path ?? value ?? ''

const list = (fields) =>
  new Intl.ListFormat(document.documentElement.lang || 'en').format(fields.map(({ name }) => name))

let before = []

/** Call it with all values of the fields before they are filled in ... */
export const filling = (held) => {
  before = held.map(plain)
}

/** ... and when they are, or when that was refused, which is told elsewhere. */
export const filled = (held, refused = false) => {
  const now = held.map(plain)
  const fields = [...document.querySelectorAll('#words [data-name-of]')].map((one) => ({
    id: one.dataset.nameOf,
    name: one.textContent,
  }))
  const changed = fields.map((field, place) => ({ ...field, value: now[place], was: before[place] }))
    .filter(({ value, was }) => value !== was)
  if (changed.length) past()
  setTimeout(() => tell(changed, refused), 100) // the page shows them then
}

const tell = (changed, refused) => {
  const elements = changed.map(({ id }) => document.getElementById(id)).filter(Boolean)
  if (changed.length || !refused) note(changed)
  show('#fields')
  flash(elements.filter((element) => element.offsetParent))
}

/** Say what has changed. */
const note = (changed) => {
  const [filled, emptied] = [changed.filter(({ value }) => value !== ''), changed.filter(({ value }) => value === '')]
  const sentence = ['filled', 'emptied'].filter((_, place) => [filled, emptied][place].length).join('-and-')
  const notice = document.querySelector('#filled [data-notice]')
  notice.querySelector('[role="status"]').textContent = say(sentence || 'unchanged', {
    filled: list(filled),
    emptied: list(emptied),
  })
  notice.hidden = false
  notice.querySelector('button').focus({ preventScroll: true })
}

const away = () => {
  const notice = document.querySelector('#filled [data-notice]')
  if (notice) notice.hidden = true
}

// On the way down: the notice is gone before Generate, further down, finds out how far to scroll.
const click = ({ target }) => {
  const pressed = target.closest?.('#filled button')?.dataset.do
  if (pressed) away()
  if (pressed === 'generate') generate()
  if (target.closest?.('#generate')) away()
}
document.addEventListener('click', click, { capture: true })
