"""What the page does in the browser itself, as small pieces of JavaScript that `page.py` hands to Gradio.

Nothing here decides anything: what comes back from a browser is verified by whoever takes it.
"""

LIVE = "element.setAttribute('role', 'status'); element.setAttribute('aria-live', 'polite')"
"""Set on what stays while its content changes: screen readers announce changes of a region, not new regions."""

JOB_KEY = "uso-job"
"""Where a tab keeps the id of its job; `sessionStorage` lives as long as the tab, over reloads."""

KEEP_JOB = f"""
const keep = () => {{
  if (/^[0-9a-f]{{32}}$/.test(props.value)) sessionStorage.setItem('{JOB_KEY}', props.value)
  else sessionStorage.removeItem('{JOB_KEY}')
}}
watch('value', keep)
"""
"""Of the hidden field with the job's id: what the server writes into it, the tab remembers."""

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
"""Of the history: a click on a picture asks the server for it, and marks it; a new list may mark another."""

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
"""Shows times as they are where the person is; the server knows only its own."""

SHOW_RESULT = """() => {
  if (!matchMedia('(max-width: 640px)').matches) return
  const still = matchMedia('(prefers-reduced-motion: reduce)').matches
  document.querySelector('#result').scrollIntoView({ behavior: still ? 'auto' : 'smooth' })
}"""
"""On a phone the result is below everything else."""


def keep_draft(key: str) -> str:
    """What is typed survives a reload of the tab; nothing is kept before `recall_draft` has had its turn."""
    return f"(...fields) => {{ if (window.usoDraft) sessionStorage.setItem('{key}', JSON.stringify(fields)) }}"


def recall_draft(key: str) -> str:
    return f"""(...fields) => {{
  window.usoDraft = true
  let kept = null
  try {{ kept = JSON.parse(sessionStorage.getItem('{key}')) }} catch (error) {{}}
  return Array.isArray(kept) && kept.length === fields.length ? kept : fields
}}"""
