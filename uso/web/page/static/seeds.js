// The switch beside the seed, and the seed of the picture that is shown. -1 stands for a random one, here as in the API.

import { say } from './words.js'

const RANDOM = -1
const MOST = 2 ** 32

/** The seed of the picture that is shown; null without one. */
const lastSeed = () => document.querySelector('#facts [data-seed]')?.dataset.seed ?? null

/** What the seed becomes when the switch is used: the last one, or one that is drawn now. */
export const switchSeed = (random) => (random ? RANDOM : Number(lastSeed() ?? Math.floor(Math.random() * MOST)))

export const isRandom = (seed) => seed === null || seed === undefined || seed === RANDOM

const tell = () => {
  const place = document.querySelector('#last-seed .html-container > *')
  const seed = lastSeed()
  const words = seed === null ? '' : say('last-seed', { seed })
  if (place && place.textContent !== words) place.textContent = words
}
new MutationObserver(tell).observe(document.body, { childList: true, subtree: true })
