// Says what a button does, to whoever comes to it: Gradio's buttons take no hint.

import { say } from './words.js'

const hint = ({ target }) => {
  const button = target.closest?.('#reuse-all, #remix, #reuse-seed')
  if (button && !button.title) button.title = say(`hint-${button.id}`)
}

for (const coming of ['pointerover', 'focusin']) document.addEventListener(coming, hint)
