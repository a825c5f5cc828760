// A refusal that names a field is shown at that field too, which gets the focus. It goes, there and in the bar, as soon as
// the field changes.

import { appears, reveal, unfold } from './show.js'

const IMAGES = '#references' // its frames are as high as they are: what is said of them stands below
// Where else a change may do away with it: an image is something to draw, it has a size to keep, the switch is a seed.
const PLACES = {
  prompt: '#prompt, #references',
  keep: '#keep, #content',
  content: '#content, #keep',
  seed: '#seed-row, #num-images',
}
let marked = null

const refusal = () => document.querySelector('#message [data-field]')

const clear = () => {
  marked?.classList.remove('uso-refused')
  marked?.querySelector('[aria-invalid]')?.removeAttribute('aria-invalid')
  marked?.querySelector('[aria-describedby="refusal"]')?.removeAttribute('aria-describedby')
  document.querySelector('#refusal')?.remove()
  marked = null
}

/** Say at a field why something was not done. `aloud`: nothing else tells screen readers. */
export const refuse = (field, sentence, aloud = false) => {
  clear()
  marked = field
  field.classList.add('uso-refused')
  if (document.querySelector('#note')?.innerText.includes(sentence)) return reveal(field)
  const text = document.createElement('p')
  text.id = 'refusal'
  text.className = 'uso-note uso-bad'
  text.textContent = sentence
  if (aloud) text.setAttribute('role', 'alert')
  const images = field.closest(IMAGES)
  if (images) images.after(text)
  else field.append(text)
  reveal(field)
}

const mark = async (id, sentence) => {
  clear()
  if (!document.getElementById(id)?.offsetParent) unfold('advanced')
  const field = await appears(`#${CSS.escape(id)}`)
  if (!field) return
  refuse(field, sentence)
  const inputs = [...field.querySelectorAll('textarea, input:not([type="file"]), button')]
  const control = inputs.find((one) => one.offsetParent && !one.disabled)
  if (!control) return
  if (!field.closest(IMAGES)) {
    control.setAttribute('aria-invalid', 'true')
    control.setAttribute('aria-describedby', 'refusal')
  }
  control.focus({ preventScroll: true })
  reveal(field)
  setTimeout(() => marked === field && reveal(field), 600) // a scroll to the result may have been under way
}

/** These elements have changed: what was refused because of them is past. */
export const over = (...elements) => {
  const within = (id) =>
    [...document.querySelectorAll(PLACES[id] ?? `#${CSS.escape(id)}`)].some((place) =>
      elements.some((element) => place.contains(element)),
    )
  const told = refusal()
  if (told && within(told.dataset.field)) told.remove()
  if (marked && within(marked.id)) clear()
}

/** The fields have been filled in from something: whatever was refused is past. */
export const past = () => {
  refusal()?.remove()
  clear()
}

for (const change of ['input', 'change', 'drop']) document.addEventListener(change, ({ target }) => over(target))
// On the way down: a button that takes an image out goes with it.
document.addEventListener('click', ({ target }) => target.closest?.('button') && over(target), true)

let last = ''
const look = () => {
  const told = refusal()
  const time = told?.dataset.time ?? ''
  if (time === last) return
  last = time
  if (told) mark(told.dataset.field, told.innerText)
  else clear()
}
const changes = { childList: true, subtree: true, attributeFilter: ['data-time'] }
new MutationObserver(look).observe(document.body, changes)
