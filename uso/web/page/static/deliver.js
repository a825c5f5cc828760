// A text from the server becomes a file among the downloads.

export const deliver = (element) => {
  const { name, text } = element.querySelector('[data-text]')?.dataset ?? {}
  if (!text) return
  const link = document.createElement('a')
  link.href = URL.createObjectURL(new Blob([text], { type: 'application/json' }))
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 1000)
}
