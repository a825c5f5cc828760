// Sizes are multiples of the sliders' step. What is typed is rounded when the field is left, and the page says so.

import { say } from './words.js'

const TYPED = ['width', 'height', 'content-size'].map((id) => `#${id} input[type="number"]`).join(', ')

const rounded = ({ value, step, min, max }) => {
  const nearest = Math.round(value / step) * step
  return Math.min(Math.max(nearest, min), max)
}

const write = (input, value) => {
  input.value = value
  input.dispatchEvent(new Event('input', { bubbles: true }))
}

/** Say below a field that its value was rounded, until it is changed. */
const tell = (input, typed, value) => {
  const field = input.closest('.block')
  field.querySelector('.uso-rounded')?.remove()
  const text = document.createElement('p')
  text.className = 'uso-note uso-rounded'
  text.setAttribute('role', 'status')
  field.append(text)
  const { step, min, max } = input
  text.textContent = say('rounded', { typed, value, step, min, max })
}

const typing = new WeakMap() // what was typed, which Gradio may have moved into the range since

document.addEventListener('input', ({ target }) => target.matches?.(TYPED) && typing.set(target, target.value), true)

document.addEventListener(
  'focusout',
  ({ target }) => {
    if (!target.matches?.(TYPED) || target.value === '' || target.disabled) return
    const typed = typing.get(target) || target.value
    typing.delete(target)
    const value = rounded({ value: +typed, step: +target.step, min: +target.min, max: +target.max })
    if (value === +typed) return
    write(target, value)
    typing.delete(target)
    tell(target, typed, value)
  },
  true,
)

document.addEventListener('input', ({ target, isTrusted }) => {
  if (isTrusted && target.matches?.(`${TYPED}, input[type="range"]`))
    target.closest('.block')?.querySelector('.uso-rounded')?.remove()
})
