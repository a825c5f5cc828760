// The question before anything is deleted for good: pictures, a style, a preset.

import { say } from './words.js'

/** Ask; whether the answer is yes. `question` and `what`, which says what else that means, are names of sentences;
 * `values` is filled in. The browser gives the focus back to where it was. */
export const confirmed = (question, what, values) =>
  new Promise((resolve) => {
    const dialog = document.querySelector('#confirm dialog')
    dialog.querySelector('#confirm-question').textContent = say(question, values)
    dialog.querySelector('#confirm-what').textContent = say(what)
    dialog.returnValue = ''
    dialog.onclose = () => resolve(dialog.returnValue === 'yes')
    dialog.showModal()
  })
