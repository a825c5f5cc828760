// "Your pictures" by keyboard: Tab reaches one of them, arrows go from there to the others.

const tiles = () => [...document.querySelectorAll('#gallery [data-picture]')]

/** Let Tab reach one picture: this one, or the one that it reached before, or the one that is shown, or the first. */
export const rove = (to) => {
  const all = tiles()
  const before = all.find((tile) => tile.getAttribute('tabindex') === '0')
  const one = to ?? before ?? all.find((tile) => tile.hasAttribute('aria-current')) ?? all[0]
  for (const tile of all) tile.tabIndex = tile === one ? 0 : -1
}

/** Where a key goes from a place; nowhere beyond the ends. */
const goal = (key, place, all) => {
  const row = all.filter((tile) => tile.getBoundingClientRect().top === all[0].getBoundingClientRect().top).length
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row, ArrowDown: row, Home: -place, End: all.length - 1 - place }
  return all[place + steps[key]]
}

document.addEventListener('focusin', ({ target }) => {
  if (target.matches?.('#gallery [data-picture]')) rove(target)
})

document.addEventListener('keydown', (event) => {
  if (!event.target.matches?.('#gallery [data-picture]') || event.ctrlKey || event.metaKey || event.altKey) return
  const all = tiles()
  if (/^(Arrow.*|Home|End)$/.test(event.key)) event.preventDefault()
  goal(event.key, all.indexOf(event.target), all)?.focus()
})
