// Images that are pasted, dropped anywhere, or dragged from the page's own pictures: into the fields for references.

import { refuse } from './refusals.js'
import { appears, reveal, unfold } from './show.js'
import { say } from './words.js'

const SLOTS = ['content', 'style', 'extra-style']
const OURS = 'application/x-uso-picture' // a picture of this page that is being dragged: its id

const full = (slot) => Boolean(document.querySelector(`#${slot} img`))

/** Where an image goes that was not put anywhere in particular: the first field that is free. */
const free = () => SLOTS.find((slot) => !full(slot))

/** Put a file into one of Gradio's fields, as if it were chosen there. */
const put = (input, file) => {
  const files = new DataTransfer()
  files.items.add(file)
  input.files = files.files
  input.dispatchEvent(new Event('change', { bubbles: true }))
}

/** Nothing is replaced that somebody has not pointed at. */
const refuseFull = () => refuse(document.querySelector('#references'), say('full'), true)

const use = async (slot, file) => {
  if (!slot) return refuseFull()
  const input = await appears(`#${slot} input[type="file"]`)
  if (!input) return
  put(input, file)
  reveal(document.querySelector('#references'))
}

// A PNG of ours offers its settings.

const CHUNK = 'iTXtuso\0'

/** Whether a file is a PNG with a request in it: the chunk stands before the pixels. */
const isOurs = async (file) => {
  const head = new TextDecoder('latin1').decode(await file.slice(0, 64 * 1024).arrayBuffer())
  return head.startsWith('PNG', 1) && head.includes(CHUNK)
}

let offered = null

const offer = async (file) => {
  const notice = document.querySelector('#offer [data-notice]')
  if (!notice) return
  notice.hidden = true
  if (!(await isOurs(file))) return
  offered = file
  notice.querySelector('[role="status"]').textContent = say('offer', { name: file.name })
  notice.hidden = false
  reveal(notice)
}

const restore = async (file) => {
  unfold('restore-frame')
  if (!(await appears('#restore'))) return
  document.querySelector('#restore button[aria-label]:not(:has(input))')?.click() // takes out the one before
  const input = await appears('#restore input[type="file"]')
  if (input) put(input, file)
}

document.addEventListener('click', ({ target }) => {
  const pressed = target.closest?.('#offer button')?.dataset.do
  if (!pressed) return
  document.querySelector('#offer [data-notice]').hidden = true
  if (pressed === 'restore' && offered) restore(offered)
})

document.addEventListener('change', ({ target }) => {
  if (target.matches?.('#references input[type="file"]') && target.files[0]) offer(target.files[0])
})

// Paste.

const imageOf = (data) => [...(data?.files ?? [])].find((file) => file.type.startsWith('image/'))

document.addEventListener(
  'paste',
  (event) => {
    const file = imageOf(event.clipboardData)
    if (!file || document.querySelector('dialog[open]')) return
    event.preventDefault()
    event.stopPropagation()
    use(fieldOf(document.activeElement) ?? free() ?? pointed, file)
  },
  true,
)

const fieldOf = (element) => element?.closest?.('#references .block[id]')?.id

let pointed // the filled field that was clicked last, until something else is
const point = ({ target }) => {
  const field = fieldOf(target)
  pointed = field && full(field) ? field : undefined
}
document.addEventListener('pointerdown', point, true)

// Drop.

const zones = () => document.querySelector('#drop [data-zones]')

const carries = (data) => data?.types.includes('Files') || data?.types.includes(OURS)

const open = (data) => {
  const png = [...data.items].some((item) => item.kind === 'file' && item.type === 'image/png')
  zones().querySelector('[data-zone="settings"]').hidden = !png
  for (const zone of zones().querySelectorAll('[data-zone]')) {
    zone.classList.toggle('uso-next', zone.dataset.zone === free())
    zone.classList.remove('uso-over')
  }
  zones().hidden = false
}

const close = () => {
  if (zones()) zones().hidden = true
}

const dropped = (zone, data) => {
  const picture = data.getData(OURS)
  const field = zone === 'settings' ? free() : zone
  if (picture) return field ? window.uso.place(picture, field) : refuseFull()
  const file = imageOf(data) ?? data.files[0]
  if (!file) return undefined
  return zone === 'settings' ? restore(file) : use(zone, file)
}

document.addEventListener('pointerdown', ({ target }) => {
  const tile = target.closest?.('[data-picture]')
  if (tile) tile.draggable = true // a button is not, by itself
})

document.addEventListener(
  'dragstart',
  ({ target, dataTransfer }) => {
    const picture = target.closest?.('[data-picture]')?.dataset.picture ?? shown(target)
    if (!picture || !dataTransfer) return
    dataTransfer.setData(OURS, picture)
    dataTransfer.effectAllowed = 'copy'
  },
  true,
)

/** The id of the picture that is shown, if that is what is dragged. */
const shown = (target) =>
  target.closest?.('#picture') ? document.querySelector('#picture-id .html-container')?.textContent.trim() : ''

const listen = (name, act) =>
  window.addEventListener(
    name,
    (event) => {
      if (!carries(event.dataTransfer) || !zones()) return
      event.preventDefault()
      event.stopPropagation()
      act(event)
    },
    true,
  )

listen('dragenter', ({ dataTransfer }) => zones().hidden && open(dataTransfer))
listen('dragover', (event) => {
  event.dataTransfer.dropEffect = 'copy'
  const over = event.target.closest?.('[data-zone]')
  for (const zone of zones().querySelectorAll('[data-zone]')) zone.classList.toggle('uso-over', zone === over)
})
listen('drop', (event) => {
  const zone = event.target.closest?.('[data-zone]')?.dataset.zone ?? free()
  close()
  dropped(zone, event.dataTransfer)
})
window.addEventListener('dragleave', (event) => event.relatedTarget === null && close(), true)
window.addEventListener('dragend', close, true)
