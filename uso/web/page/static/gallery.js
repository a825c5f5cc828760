// "Your pictures": choosing several, marks as favourites, the question before anything is deleted, more of them.
// What is asked of the server goes through the list's own component (../kept/gallery.py).

import { confirmed } from './confirm.js'
import { rove } from './rove.js'
import { say } from './words.js'

const ANCHORS = 5

const frame = () => document.querySelector('#history')
const list = () => document.querySelector('#gallery ol')
const every = (selector) => [...document.querySelectorAll(selector)]
const tell = (name, data) => document.dispatchEvent(new CustomEvent('uso-gallery', { detail: { name, data } }))

const boxes = () => every('#gallery input[type="checkbox"]')
const chosen = () => boxes().filter((box) => box.checked).map((box) => box.value)
const ids = () => every('#gallery [data-picture]').map((one) => one.dataset.picture)

/** The pictures at an end of the list: where the next page goes on. */
export const top = () => ids().slice(0, ANCHORS).join(' ')
export const last = () => ids().slice(-ANCHORS).join(' ')

const shown = () => document.querySelector('#picture-id')?.textContent.trim()

/** Mark the picture that is shown, which the list did not know when it was made. */
const mark = (id = shown()) => {
  for (const one of every('#gallery [data-picture]'))
    if (one.dataset.picture === id) one.setAttribute('aria-current', 'true')
    else one.removeAttribute('aria-current')
}

let picked = new Set()
/** Another list is there, in the same elements: what was chosen goes with its picture, not with its place. */
export const renewed = () => {
  for (const box of boxes()) box.checked = picked.has(box.value)
  mark()
  rove()
  count()
}

const choosing = () => frame().classList.contains('uso-choosing')

/** In a choice the picture, which the keyboard reaches, says whether it is chosen. */
const pressed = (box) => {
  const tile = box.closest('li').querySelector('[data-picture]')
  if (choosing()) tile.setAttribute('aria-pressed', box.checked)
  else tile.removeAttribute('aria-pressed')
}

const count = () => {
  picked = new Set(chosen())
  for (const box of boxes()) pressed(box)
  const words = document.querySelector('#gallery-count p')
  if (!words) return
  const some = picked.size
  const { none, some: few, many, most } = words.dataset
  words.textContent = (!some ? none : some > most ? many : few).replace('{count}', some)
  for (const id of ['zip', 'delete']) document.querySelector(`#gallery-${id}`).disabled = !some
  if (some > most) document.querySelector('#gallery-zip').disabled = true
}

/** Begin or end choosing several pictures. */
export const choose = () => {
  const on = frame().classList.toggle('uso-choosing')
  const button = document.querySelector('#gallery-choose')
  button.setAttribute('aria-pressed', on)
  const words = [...button.childNodes].find((node) => node.nodeType === Node.TEXT_NODE && node.data.trim())
  button.dataset.words ||= words.data
  words.data = on ? say('end-selecting') : button.dataset.words
  if (!on) for (const box of boxes()) box.checked = false
  count()
}

/** Choose all that are listed, or none where all are chosen. */
export const all = () => {
  const on = boxes().some((box) => !box.checked)
  for (const box of boxes()) box.checked = on
  count()
}

/** Download what is chosen. */
export const zip = () => {
  const link = document.createElement('a')
  link.href = `pictures.zip?ids=${chosen().join(',')}`
  link.download = ''
  document.body.append(link)
  link.click()
  link.remove()
}

/** What a picture is called, where it is listed. */
const named = (id) => {
  const tile = ['#gallery', '#grid'].map((list) => document.querySelector(`${list} [data-picture="${CSS.escape(id)}"]`))
  return tile.find(Boolean)?.getAttribute('aria-label')
}

/** What may be shown instead of the picture that is shown: the next of its request, or else of the list, or the last. */
const beside = (deleted) => {
  const lists = [every('#grid [data-picture]').map((one) => one.dataset.picture), ids()]
  const around = (list) => {
    const place = list.indexOf(shown())
    return [...list.slice(place + 1), ...list.slice(0, Math.max(place, 0)).reverse()]
  }
  return lists.flatMap(around).filter((id) => !deleted.includes(id)).slice(0, ANCHORS)
}

/** Ask before pictures are deleted: the `chosen` ones, the one that is `shown`, `all`, or those of a list. */
export const ask = async (which) => {
  const listed = Array.isArray(which) ? which : which === 'shown' ? [shown()].filter(Boolean) : chosen()
  const pictures = which === 'all' ? 'all' : listed
  if (!pictures.length) return
  const name = pictures.length === 1 ? named(pictures[0]) : ''
  const question = which === 'all' ? 'all' : pictures.length > 1 ? 'many' : name ? 'one' : 'this'
  const values = { name, count: pictures.length }
  if (await confirmed(`delete-${question}`, 'with-pictures', values)) tell('delete', { pictures, next: beside(pictures) })
}

/** The link to the pictures of a request names those that are left; a single one needs none. */
const recount = () => {
  const left = every('#grid [data-picture]').map((one) => one.dataset.picture)
  const link = document.querySelector('#grid a')
  if (!link) return
  link.href = `pictures.zip?ids=${left.join(',')}`
  link.querySelector('[data-part="count"]').textContent = left.length
  link.parentElement.hidden = left.length < 2
}

const buried = new Set() // ids of what was deleted
/** Take deleted pictures out of every list, one too that was asked for before a deletion and came after it. */
const bury = () => {
  const deleted = every('[data-picture]').filter((one) => buried.has(one.dataset.picture))
  for (const one of deleted) (one.closest('li') ?? one).remove()
  if (deleted.length) recount()
}

/** Pictures were deleted; the focus stays near. */
export const gone = (element) => {
  const deleted = element.querySelector('[data-ids]')?.dataset.ids.split(' ') ?? []
  const order = ids()
  const from = order.findIndex((id) => deleted.includes(id))
  const next = order.slice(from).find((id) => !deleted.includes(id))
  for (const id of deleted) buried.add(id)
  bury()
  rove()
  setTimeout(() => refocus(next), 100) // the dialog has given the focus back, and buttons of the picture are gone
  const left = list()?.querySelector('[data-picture]')
  const more = document.querySelector('#gallery-more')
  if (!left && more?.offsetParent) more.click()
  else if (!left && choosing()) choose() // there is nothing more to choose
  count()
}

/** Where the focus was lost, it goes to the next picture, or the last, or else to what stands above them. */
const refocus = (next) => {
  const has = document.activeElement
  if (has !== document.body && has.offsetParent && !has.disabled) return
  const left = ids().includes(next) ? next : ids().at(-1)
  const search = document.querySelector('#gallery-search :is(input, textarea)')
  const heading = document.querySelector('#gallery-head h2')
  heading.tabIndex = -1
  const place = left ? document.querySelector(`#gallery [data-picture="${left}"]`) : search?.offsetParent ? search : heading
  place.focus()
}

/** Show whether a picture is a favourite. */
export const starred = (element) => {
  const { id, on } = element.querySelector('[data-id]')?.dataset ?? {}
  for (const star of every(`[data-star="${CSS.escape(id ?? '')}"]`)) star.setAttribute('aria-pressed', on)
}

/** Add pictures to an end of the list, but for those that are in it. */
export const extra = (element) => {
  const { where, html } = element.querySelector('[data-where]').dataset
  const { content } = Object.assign(document.createElement('template'), { innerHTML: html })
  const known = new Set(ids())
  const items = [...content.querySelectorAll('li')].filter(
    (item) => !known.has(item.querySelector('[data-picture]').dataset.picture),
  )
  if (where === 'afterbegin') list()?.prepend(...items)
  else {
    const had = document.activeElement?.id === 'gallery-more' || document.activeElement === document.body
    list()?.append(...items)
    if (had) items[0]?.querySelector('[data-picture]').focus({ preventScroll: true })
  }
  mark()
  rove()
  count()
}

let byKey = false
/** The picture that was chosen is there. Whoever chose it by keyboard goes on from it. */
export const opened = () => {
  document.body.classList.remove('uso-opening')
  const picture = document.querySelector('#picture img')
  if (!byKey || !picture) return
  byKey = false
  picture.tabIndex = -1
  picture.focus()
}

let latest = null
const pick = (tile, event) => {
  const box = tile.closest('li').querySelector('input')
  if (!choosing()) {
    document.body.classList.add('uso-pinned', 'uso-opening') // what is being made meanwhile does not cover it
    mark(tile.dataset.picture)
    byKey = !event.detail // a click has counted its presses
    return tell('select', { picture: tile.dataset.picture })
  }
  box.checked = !box.checked
  stretch(box, event)
}

/** With Shift, what lies between two choices becomes like the second. */
const stretch = (box, event) => {
  const row = boxes()
  const [from, to] = [row.indexOf(latest), row.indexOf(box)].sort((one, other) => one - other)
  if (event.shiftKey && from >= 0) for (const between of row.slice(from, to)) between.checked = box.checked
  latest = box
  count()
}

new MutationObserver(() => buried.size && bury()).observe(document.body, { childList: true, subtree: true })

document.addEventListener('click', (event) => {
  const target = event.target.closest?.('#gallery [data-picture], #gallery [data-star], #gallery input')
  if (!target) return
  if (target.matches('input')) return stretch(target, event)
  if (target.dataset.picture) return pick(target, event)
  const on = target.getAttribute('aria-pressed') !== 'true'
  target.setAttribute('aria-pressed', on)
  tell('like', { picture: target.dataset.star, on })
})

document.addEventListener('keydown', (event) => {
  const tile = event.target.closest?.('#gallery [data-picture]')
  if (!tile || event.ctrlKey || event.metaKey || event.altKey) return
  if (event.key === 'Delete') ask([tile.dataset.picture])
  else if (event.key.toLowerCase() === 'f') tile.closest('li').querySelector('[data-star]').click()
  else return
  event.preventDefault()
})
