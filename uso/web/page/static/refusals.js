// A refusal that names a field is shown at that field too, which gets the focus.

import { appears, reveal, unfold } from './show.js'

const IMAGES = '#references' // its frames are as high as they are: what is said of them stands below
let marked = null

const clear = () => {
  marked?.classList.remove('uso-refused')
  marked?.querySelector('[aria-invalid]')?.removeAttribute('aria-invalid')
  marked?.querySelector('[aria-describedby="refusal"]')?.removeAttribute('aria-describedby')
  document.querySelector('#refusal')?.remove()
  marked = null
}

const mark = async (id, sentence) => {
  clear()
  if (!document.getElementById(id)?.offsetParent) unfold('advanced')
  const field = await appears(`#${CSS.escape(id)}`)
  if (!field) return
  marked = field
  const images = field.closest(IMAGES)
  field.classList.add('uso-refused')
  if (!document.querySelector('#note')?.innerText.includes(sentence)) {
    const text = document.createElement('p')
    text.id = 'refusal'
    text.className = 'uso-note uso-bad'
    text.textContent = sentence
    if (images) images.after(text)
    else field.append(text)
  }
  const inputs = [...field.querySelectorAll('textarea, input:not([type="file"]), button')]
  const control = inputs.find((one) => one.offsetParent && !one.disabled)
  if (!control) return reveal(field)
  if (!images) {
    control.setAttribute('aria-invalid', 'true')
    control.setAttribute('aria-describedby', 'refusal')
  }
  control.focus({ preventScroll: true })
  reveal(field)
  setTimeout(() => marked === field && reveal(field), 600) // a scroll to the result may have been under way
}

for (const change of ['input', 'click', 'drop'])
  document.addEventListener(change, ({ target }) => {
    if (marked?.contains(target)) clear()
  })

let last = ''
const look = () => {
  const refusal = document.querySelector('#message [data-field]')
  const time = refusal?.dataset.time ?? ''
  if (time === last) return
  last = time
  if (refusal) mark(refusal.dataset.field, refusal.innerText)
  else clear()
}
const changes = { childList: true, subtree: true, attributeFilter: ['data-time'] }
new MutationObserver(look).observe(document.body, changes)
