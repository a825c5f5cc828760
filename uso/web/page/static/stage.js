// What stands below the picture is about the one that is shown: while a preview is in its place, or another one has been
// clicked and is on its way, its buttons rest. Whoever pressed Stop, or was at one of those buttons, goes on from a button
// that can be pressed.

const BELOW = '#afterwards, #settings-frame'
let last = null // that had the focus

const lost = () => [document.body, null].includes(document.activeElement)
const focus = (selector) => document.querySelector(selector)?.focus({ preventScroll: true })

const look = () => {
  const is = (state) => document.body.classList.contains(state)
  const covered = is('uso-opening') || (Boolean(document.querySelector('#preview figure')) && !is('uso-pinned'))
  for (const part of document.querySelectorAll(BELOW)) {
    if (part.inert === covered) continue
    const within = part.contains(document.activeElement)
    part.inert = covered
    if (covered && within) focus('#stop:not([disabled])')
  }
  if (last?.id === 'stop' && last.disabled && (lost() || document.activeElement === last)) focus('#generate')
}

/** A click on the picture shows it large, as its own button does, which comes first. */
document.addEventListener('click', ({ target }) => {
  if (target.matches?.('#picture:not(.fullscreen) img')) document.querySelector('#picture button:has(svg)')?.click()
})

document.addEventListener('focusin', ({ target }) => (last = target))
new MutationObserver(look).observe(document.body, { attributeFilter: ['class'] })
new MutationObserver(look).observe(document.body, { childList: true, subtree: true, attributeFilter: ['disabled'] })
