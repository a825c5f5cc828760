// "Your pictures" by keyboard: Tab reaches one of them, arrows go from there to the others.

const tiles = () => [...document.querySelectorAll('#gallery [data-picture]')]

/** Let Tab reach one picture: this one, or the one that it reached before, or the one that is shown, or the first. */
export const rove = (to) => {
  const all = tiles()
  const before = all.find((tile) => tile.getAttribute('tabindex') === '0')
  const one = to ?? before ?? all.find((tile) => tile.hasAttribute('aria-current')) ?? all[0]
  for (const tile of all) tile.tabIndex = tile === one ? 0 : -1
}

/** How far a key goes. */
const step = (key, all) => {
  const row = all.filter((tile) => tile.getBoundingClientRect().top === all[0].getBoundingClientRect().top).length
  return { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row, ArrowDown: row, Home: -all.length, End: all.length }[key]
}

document.addEventListener('focusin', ({ target }) => {
  if (target.matches?.('#gallery [data-picture]')) rove(target)
})

document.addEventListener('keydown', (event) => {
  if (!event.target.matches?.('#gallery [data-picture]') || event.ctrlKey || event.metaKey || event.altKey) return
  const all = tiles()
  const by = step(event.key, all)
  if (!by) return
  event.preventDefault()
  const place = all.indexOf(event.target) + by
  const far = Math.abs(by) === all.length // Home and End; a row beyond the ends is no place to go
  if (all[place]) all[place].focus()
  else if (far) all.at(by > 0 ? -1 : 0).focus()
})
