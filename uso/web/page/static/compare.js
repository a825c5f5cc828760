// Two pictures in the place of one: one over the other with a slider between them, or side by side.

import { say } from './words.js'

const part = (name) => document.querySelector(`#compare [data-part="${name}"]`)
const open = () => part('view') && !part('view').hidden
let opener = null

/** The seed of a picture, from the name of its tile. */
const named = (id) => {
  const name = document.querySelector(`[data-picture="${id}"]`)?.getAttribute('aria-label') ?? ''
  return name.split(/[,，] */).at(-1)
}

const picture = (id) => ({ url: `pictures/${id}.png`, label: named(id) })

const put = (place, shown) => {
  const image = part(place)
  image.hidden = !shown
  image.src = shown?.url ?? ''
  image.alt = shown?.label ?? ''
  image.closest('figure').querySelector('figcaption').textContent = shown?.label ?? ''
}

const slide = () => part('view').style.setProperty('--uso-at', `${part('slider').value}%`)

const side = (on) => {
  part('view').classList.toggle('uso-side', on)
  part('side').setAttribute('aria-pressed', on)
}

const showSecond = (second) => {
  put('second', second)
  part('choose').hidden = Boolean(second)
  part('slider').hidden = !second
}

const begin = (first, second) => {
  opener = document.activeElement
  document.body.classList.add('uso-pinned')
  put('first', first)
  showSecond(second)
  part('view').hidden = false
  part('slider').value = 50
  slide()
  ;(second ? part('slider') : part('close')).focus({ preventScroll: true })
  window.uso.show('#stage')
}

const close = () => {
  if (!open()) return
  part('view').hidden = true
  put('first', null)
  put('second', null)
  opener?.focus?.({ preventScroll: true })
}

/** Compare the picture that is shown with the next one of its request, or with one that is chosen then. */
export const compare = (id) => {
  const tiles = [...document.querySelectorAll('#grid [data-picture]')].map((tile) => tile.dataset.picture)
  const next = tiles.length > 1 ? tiles[(tiles.indexOf(id) + 1) % tiles.length] : null
  side(false)
  begin(picture(id), next && picture(next))
}

/** Compare a content image with its picture: over each other where they agree, or else side by side. */
export const beforeAfter = (found) => {
  if (!found) return
  const { picture: id, url, over } = JSON.parse(found)
  side(!over)
  begin({ url, label: say('before') }, { ...picture(id), label: say('after') })
}

document.addEventListener('input', ({ target }) => {
  if (target.matches?.('#compare [data-part="slider"]')) slide()
})

document.addEventListener(
  'click',
  (event) => {
    if (!open()) return
    const tile = event.target.closest('[data-picture]')
    if (tile) {
      event.stopPropagation()
      showSecond(picture(tile.dataset.picture))
      window.uso.show('#stage')
    }
    if (event.target.closest('#generate, #compare [data-part="close"]')) close()
    if (event.target.closest('#compare [data-part="side"]')) side(!part('view').classList.contains('uso-side'))
  },
  true,
)

document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && open()) close()
})
