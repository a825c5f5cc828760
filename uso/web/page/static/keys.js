// Ctrl+Enter, or Command and Enter, presses Generate.

const apple = /Mac|iPhone|iPad/.test(navigator.platform)
const PRESSED = apple ? 'Meta+Enter' : 'Control+Enter'
const SHOWN = apple ? '⌘ ↵' : 'Ctrl ↵'

/** Press Generate, after what is being typed has taken effect. */
export const generate = () => {
  const field = document.activeElement
  field?.blur?.()
  field?.focus?.({ preventScroll: true })
  setTimeout(() => document.querySelector('#generate')?.click(), 50)
}

document.addEventListener(
  'keydown',
  (event) => {
    const pressed = event.key === 'Enter' && (event.ctrlKey || event.metaKey) && !event.altKey && !event.isComposing
    if (!pressed || event.repeat || document.querySelector('dialog[open]')) return
    event.preventDefault()
    event.stopPropagation()
    generate()
  },
  true,
)

const tell = () => {
  const button = document.querySelector('#generate')
  if (!button) return setTimeout(tell, 200)
  button.setAttribute('aria-keyshortcuts', PRESSED)
  button.dataset.keys = SHOWN
}
tell()
