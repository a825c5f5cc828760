// Sentences that the server has put into the page (`html.words`), with values filled in.

export const say = (name, values = {}) => {
  const words = document.querySelector(`#words [data-word="${name}"]`)?.textContent ?? ''
  return words.replace(/\{(\w+)\}/g, (all, key) => values[key] ?? all)
}
