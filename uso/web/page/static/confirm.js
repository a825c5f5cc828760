// The question before anything is deleted for good: pictures, a style, a preset.

import { say } from './words.js'

let answer = () => {}

/** Ask; whether the answer is yes. `question` and `what`, which says what else that means, are names of sentences;
 * `values` is filled in. The browser gives the focus back to where it was, and reports the closing a little later, when
 * the next question may already be open. */
export const confirmed = (question, what, values) =>
  new Promise((resolve) => {
    const dialog = document.querySelector('#confirm dialog')
    answer() // of the question before, if its end is still to be told
    answer = () => resolve(dialog.returnValue === 'yes')
    dialog.querySelector('#confirm-question').textContent = say(question, values)
    dialog.querySelector('#confirm-what').textContent = say(what)
    dialog.returnValue = ''
    dialog.onclose = () => dialog.open || answer()
    dialog.showModal()
  })
