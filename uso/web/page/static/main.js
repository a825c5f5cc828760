// What the page does by itself, in the browser. The server checks whatever a browser sends, so nothing here decides
// anything. Texts come from the server (../html.py); Gradio's events call `window.uso`.

import './files.js'
import './hints.js'
import './keys.js'
import './lost.js'
import './refusals.js'
import './sizes.js'
import './stage.js'
import { beforeAfter, compare } from './compare.js'
import { confirmed } from './confirm.js'
import { deliver } from './deliver.js'
import { filled, filling } from './filled.js'
import * as gallery from './gallery.js'
import { look } from './lens.js'
import { noteSize, ownSize } from './own_size.js'
import { isRandom, switchSeed } from './seeds.js'
import { show, showResult } from './show.js'
import * as styles from './styles.js'

const dialogs = { beforeAfter, compare, confirmed, deliver, gallery, look, styles }
const fields = { filled, filling, isRandom, noteSize, ownSize, switchSeed }
window.uso = { ...window.uso, ...dialogs, ...fields, show, showResult }
