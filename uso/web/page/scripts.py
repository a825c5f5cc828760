"""Small pieces of JavaScript that `layout.py` gives to Gradio.

Nothing here decides anything: the server checks whatever a browser sends.
"""

LIVE = "element.setAttribute('role', 'status'); element.setAttribute('aria-live', 'polite')"
"""For elements that stay while their content changes: screen readers announce changes in a region, not new regions."""

TAB_ID = """(() => {
  if (!window.usoTab) {
    const fresh = () => [...crypto.getRandomValues(new Uint8Array(16))].map(byte => byte.toString(16).padStart(2, '0'))
    let kept = ''
    try { kept = sessionStorage.getItem('uso-tab') } catch (error) {}
    window.usoTab = /^[0-9a-f]{32}$/.test(kept) ? kept : fresh().join('')
    try { sessionStorage.setItem('uso-tab', window.usoTab) } catch (error) {}
  }
  return window.usoTab
})()"""
"""The tab's id: unguessable, in `sessionStorage`, which lives as long as the tab, over reloads. Whoever has a tab's id
and is its jobs' owner may follow and stop them."""

WITH_TAB = f"(tab, ...values) => [{TAB_ID}, ...values]"
"""For an event whose first value is the tab's id: the field that stands for it is always empty."""

PICK = """
element.addEventListener('click', event => {
  const one = event.target.closest('[data-picture]')
  if (!one) return
  document.body.classList.add('uso-pinned', 'uso-opening')
  trigger('select', { picture: one.dataset.picture })
})
"""
"""For lists of pictures: a click on one asks the server for it. It stays until the next Generate: what is being made
meanwhile does not cover it."""

MARK = """
const mark = () => {
  for (const one of document.querySelectorAll('[data-picture]')) {
    if (one.dataset.picture === props.value) one.setAttribute('aria-current', 'true')
    else one.removeAttribute('aria-current')
  }
}
watch('value', mark)
"""
"""For the field with the id of the picture that is shown: marks it in all lists."""

ARRIVED = """
watch('value', () => {
  if (props.value && !document.body.classList.contains('uso-pinned')) trigger('select', { picture: props.value })
})
"""
"""For the field with the id of the newest picture: shows it, unless another was chosen while it was made."""

JOBS = """
let pressed = null
element.addEventListener('pointerdown', event => { pressed = event.target.closest('[data-stop]')?.dataset.stop })
element.addEventListener('click', event => {
  const one = event.target.closest('[data-stop]')
  if (!one || (event.detail && one.dataset.stop !== pressed)) return
  trigger('select', { job: one.dataset.stop })
})
"""
"""For the strip of requests. Another request may move under the pointer between press and click: it is not stopped."""

LOCAL_TIME = """
const local = () => {
  for (const time of element.querySelectorAll('time')) {
    const options = { dateStyle: 'medium', timeStyle: 'short' }
    time.textContent = new Date(time.dateTime).toLocaleString(document.documentElement.lang || [], options)
  }
}
watch('value', local)
local()
"""
"""Shows times in the person's own time zone."""

DESCRIBE = """
let waiting = null
window.uso = { ...window.uso, describe: () => {
  element.classList.add('uso-asking')
  clearTimeout(waiting)
  waiting = setTimeout(() => trigger('select', {}), 300)
}, described: () => element.classList.remove('uso-asking') }
element.setAttribute('role', 'status')
"""
"""For the plan: asks the server what will be made of the fields, once nothing has changed for a moment. Until the
answer is there, it does not go on saying that there is nothing (`bar.css`)."""

READY = """
watch('value', () => { if (props.value.includes('uso-dot')) window.uso?.describe?.() })
"""
"""For the model's state: once it is ready, it counts the tokens of what was typed before."""

OPEN_LOOK = """
watch('value', () => setTimeout(() => window.uso?.look?.(element.querySelector('dialog'))))
"""
"""For the dialog in which a reference is looked at: it opens when the server has filled it in."""

PLACE = """
window.uso = { ...window.uso, place: (picture, field) => trigger('select', { picture, field }) }
"""
"""For the hidden field that hears of a picture of the page that was dragged to a reference."""

FILLING = "(what, ...held) => { window.uso?.filling?.(held); return [what, ...held] }"
"""Before the fields are filled in from something: `filled.js` notes what they hold, all of them."""

FILLED = "(...held) => { window.uso?.filled?.(held) }"
"""After it: what the fields hold now."""

FILLED_OR_REFUSED = """(said, ...held) => {
  if (said) window.uso?.filled?.(held, said.includes('role="alert"'))
}"""
"""The same where it can be refused: the first value is the HTML that says how it went, empty when a file has gone."""

FORGIVE = """said => said?.includes('role="alert"') ? '' : said"""
"""A refusal goes when the field that it is about has changed; other sentences stay. For `change`: the
`input` of Gradio's text fields comes with keys that write a letter, not with a paste or Backspace."""

OPENED = "() => window.uso?.gallery?.opened?.()"

SHOW_RESULT = "() => window.uso?.showResult?.()"

GENERATE = f"""(tab, ...values) => {{
  document.body.classList.remove('uso-pinned')
  ;({SHOW_RESULT})()
  return [{TAB_ID}, ...values]
}}"""
"""For Generate: at once, what is being made is shown again."""


RENDERED = "image/x-uso-rendition"
"""In place of a file's MIME type: its field shows a rendition. Gradio sends its address back as that of the file."""

SHOW_RENDITIONS = """(renditions, ...files) => {
  const { urls } = JSON.parse(renditions)
  const shown = file => ({ ...file, url: urls[file.path], mime_type: 'RENDERED' })
  return files.map(file => urls[file?.path] ? shown(file) : file)
}""".replace("RENDERED", RENDERED)
"""Image fields whose file a browser cannot show get the address of one that it can; the file stays the same."""


def keep_draft(key: str) -> str:
    """What is typed survives a reload of the tab. Nothing is kept before `recall_draft` has run."""
    return f"(...fields) => {{ if (window.usoDraft) sessionStorage.setItem('{key}', JSON.stringify(fields)) }}"


def recall_draft(key: str) -> str:
    return f"""(...fields) => {{
  window.usoDraft = true
  let kept = null
  try {{ kept = JSON.parse(sessionStorage.getItem('{key}')) }} catch (error) {{}}
  return Array.isArray(kept) && kept.length === fields.length ? kept : fields
}}"""


def keep_images(key: str) -> str:
    """The image fields and "Keep input size" survive it too: which uploads they had. Their files stay at the server."""
    return f"""(...fields) => {{
  if (!window.usoImages) return
  const file = one => one?.path ? {{ path: one.path, orig_name: one.orig_name }} : one
  sessionStorage.setItem('{key}-images', JSON.stringify(fields.map(file)))
}}"""


def recall_images(key: str) -> str:
    return f"""(...fields) => {{
  let kept = null
  try {{ kept = JSON.parse(sessionStorage.getItem('{key}-images')) }} catch (error) {{}}
  return Array.isArray(kept) && kept.length === fields.length ? kept : fields
}}"""


def begin_images(key: str) -> str:
    """From now on the fields are kept: they have what they had before."""
    return f"(...fields) => {{ window.usoImages = true; ({keep_images(key)})(...fields) }}"
