// The dialog in which a reference is looked at: the file's own picture, and the reference as the model sees it.

/** Open a dialog that the server has made. */
export const look = (dialog) => {
  if (!dialog || dialog.open) return
  const original = dialog.querySelector('[data-original]')
  const field = document.querySelector(`#${dialog.dataset.fieldOf} img`)
  if (original && field) original.src = field.src
  dialog.showModal()
  dialog.addEventListener('click', (event) => event.target === dialog && dialog.close()) // beside it
}
