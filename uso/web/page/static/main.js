// What the page does by itself, in the browser. The server checks whatever a browser sends, so nothing here decides
// anything. Texts come from the server (../html.py); Gradio's events call `window.uso` (../scripts.py).

import './keys.js'
import './refusals.js'
import { snapSizes } from './sizes.js'
import { show } from './show.js'

snapSizes()

window.uso = { ...window.uso, show }
