// Says in the status that the server is gone. Gradio notices it, asks every two seconds, and loads the page again.

import { say } from './words.js'

const TOAST = '.toast-body' // Gradio's own message
const look = () => {
  const toast = [...document.querySelectorAll(TOAST)].find((one) => one.textContent.includes('Connection to the server was lost'))
  if (!toast || document.body.classList.contains('uso-lost')) return
  document.body.classList.add('uso-lost')
  const line = document.createElement('div')
  line.className = 'uso-line uso-bad'
  line.setAttribute('role', 'alert')
  line.textContent = say('lost')
  document.querySelector('#status .prose')?.replaceChildren(line)
  for (const button of document.querySelectorAll('#generate, #stop, #jobs button')) button.disabled = true
}
new MutationObserver(look).observe(document.body, { childList: true, subtree: true })
