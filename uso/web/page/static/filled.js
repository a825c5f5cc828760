// After an example, a restored picture or a Repeat has filled in the fields: goes there, marks what has changed, says it,
// and offers to run it.

import { generate } from './keys.js'
import { flash, show } from './show.js'
import { say } from './words.js'

/** All fields but the seed's switch, which follows from the seed. */
const fields = () => [...document.querySelectorAll('#fields .block[id]:not(#random-seed)')].filter(label)

const label = (field) => {
  const found = field.querySelector('[data-testid="block-label"], [data-testid="block-info"], .label-text')
  return found?.innerText.trim() || field.querySelector('label')?.innerText.trim() || ''
}

/** What a field holds, as one string. */
const held = (field) => {
  const values = [...field.querySelectorAll('textarea, input:not([type="file"]):not([type="range"])')]
  const typed = values.map((one) => (/checkbox|radio/.test(one.type) ? one.checked : one.value))
  return JSON.stringify([typed, field.querySelector('img')?.src.split('/').pop() ?? ''])
}

const snapshot = () => new Map(fields().map((field) => [field.id, held(field)]))

let before = new Map()

/** Call it before the fields are filled in ... */
export const filling = () => {
  before = snapshot()
}

/** ... and when they are. */
export const filled = () =>
  setTimeout(() => {
    const changed = fields().filter((field) => before.has(field.id) && before.get(field.id) !== held(field))
    const notice = document.querySelector('#filled [data-notice]')
    const names = changed.filter((field) => field.offsetParent || !field.closest('#size')).map(label)
    notice.querySelector('[role="status"]').textContent = changed.length
      ? say('filled', { fields: new Intl.ListFormat(document.documentElement.lang || 'en').format(new Set(names)) })
      : say('unchanged')
    notice.hidden = false
    show('#fields')
    flash(changed.filter((field) => field.offsetParent))
    notice.querySelector('button').focus({ preventScroll: true })
  }, 100)

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
