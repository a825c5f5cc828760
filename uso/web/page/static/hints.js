// Says what a button does, to whoever rests on it: Gradio's buttons take no hint.

import { appears } from './show.js'
import { say } from './words.js'

for (const id of ['reuse-all', 'remix', 'reuse-seed'])
  appears(`#${id}`, 60_000).then((button) => button?.setAttribute('title', say(`hint-${id}`)))
