"""Small pieces of JavaScript that `layout.py` gives to Gradio.

Nothing here decides anything: the server checks whatever a browser sends.
"""

LIVE = "element.setAttribute('role', 'status'); element.setAttribute('aria-live', 'polite')"
"""For elements that stay while their content changes: screen readers announce changes in a region, not new regions."""

JOB_KEY = "uso-job"
"""Key of the job's id in `sessionStorage`, which lives as long as the tab, over reloads."""

KEEP_JOB = f"""
const keep = () => {{
  if (/^[0-9a-f]{{32}}$/.test(props.value)) sessionStorage.setItem('{JOB_KEY}', props.value)
  else sessionStorage.removeItem('{JOB_KEY}')
}}
watch('value', keep)
"""
"""For the hidden field `memory`: the tab remembers the id that the server writes there."""

RECALL_JOB = f"() => [sessionStorage.getItem('{JOB_KEY}') || '']"

PICK = """
let current = ''
const mark = () => {
  for (const one of element.querySelectorAll('[data-picture]')) {
    if (one.dataset.picture === current) one.setAttribute('aria-current', 'true')
    else one.removeAttribute('aria-current')
  }
}
const renew = () => {
  current = element.querySelector('[aria-current]')?.dataset.picture || current
  mark()
}
element.addEventListener('click', event => {
  const one = event.target.closest('[data-picture]')
  if (!one) return
  current = one.dataset.picture
  mark()
  trigger('select', { picture: current })
})
watch('value', renew)
renew()
"""
"""For the history: a click on a picture marks it and asks the server for it. A new list may mark another."""

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
  clearTimeout(waiting)
  waiting = setTimeout(() => trigger('select', {}), 300)
} }
element.setAttribute('role', 'status')
"""
"""For the plan: asks the server what will be made of the fields, once nothing has changed for a moment."""

OPEN_LOOK = """
watch('value', () => setTimeout(() => window.uso?.look?.(element.querySelector('dialog'))))
"""
"""For the dialog in which a reference is looked at: it opens when the server has filled it in."""

PLACE = """
window.uso = { ...window.uso, place: (picture, field) => trigger('select', { picture, field }) }
"""
"""For the hidden field that hears of a picture of the page that was dragged to a reference."""

FILLED = "() => window.uso.filled()"


def filling(count: int) -> str:
    """Before the fields are filled in: `filled.js` notes what they hold. The event goes on with its `count` inputs."""
    names = ", ".join(f"value{number}" for number in range(count))
    return f"({names}) => {{ window.uso.filling(); return [{names}] }}"


SHOW_RESULT = """() => {
  const { top } = document.querySelector('#result').getBoundingClientRect()
  if (matchMedia('(max-width: 640px)').matches || top < 0) window.uso.show('#result')
}"""
"""On a phone the result lies below everything else; elsewhere the page may be scrolled past it."""


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
