// Brings a part of the page into sight.

const still = () => matchMedia('(prefers-reduced-motion: reduce)').matches

/** Scroll to an element; its top comes to the top of the window. */
export const show = (selector) => {
  const behavior = still() ? 'auto' : 'smooth'
  document.querySelector(selector)?.scrollIntoView({ behavior, block: 'start' })
}

/** Go to the result: on a phone it lies below everything else, elsewhere the page may be scrolled past it. */
export const showResult = () => {
  const { top, bottom, height } = document.querySelector('#stage').getBoundingClientRect()
  const seen = Math.min(bottom, innerHeight) - Math.max(top, 0)
  if (matchMedia('(max-width: 640px)').matches || seen < height / 2) show('#result')
}

/** Scroll as little as is needed. */
export const reveal = (element) =>
  element.scrollIntoView({ behavior: still() ? 'auto' : 'smooth', block: 'nearest' })

/** Mark elements for a moment, as those that have changed. */
export const flash = (elements) => {
  for (const element of elements) {
    element.classList.remove('uso-changed')
    void element.offsetWidth // begins the animation anew
    element.classList.add('uso-changed')
    element.addEventListener('animationend', () => element.classList.remove('uso-changed'), { once: true })
  }
}

/** The element, as soon as it is there: Gradio makes what is folded when it is unfolded. */
export const appears = (selector, milliseconds = 2000) =>
  new Promise((resolve) => {
    const end = performance.now() + milliseconds
    const look = () => {
      const found = document.querySelector(selector)
      if (found || performance.now() > end) resolve(found)
      else setTimeout(look, 30)
    }
    look()
  })

/** Open one of Gradio's accordions. */
export const unfold = (id) => {
  const content = document.querySelector(`#${id} [data-testid="accordion-content"]`)
  if (content?.style.display === 'none') document.querySelector(`#${id} > button`)?.click()
}
