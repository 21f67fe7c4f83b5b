import { type FormEvent, useEffect, useRef, useState } from 'react'
import { Dialog } from './Dialog'
import type { Fields } from './useTasks'

interface Version {
  data: Fields
  etag: string
}

interface Props {
  /** Reads the newest version. Returns undefined if that was refused. */
  read: () => Promise<Version | undefined>
  onSave: (fields: Fields, etag: string) => void
  onClose: () => void
}

export function EditDialog({ read, onSave, onClose }: Props) {
  const [version, setVersion] = useState<Version>()
  const title = useRef<HTMLInputElement>(null)

  // Once, because the dialog edits the version that it read when it opened.
  useEffect(() => {
    let isOpen = true
    void read().then((version) => {
      if (!isOpen) return
      if (version) setVersion(version)
      else onClose()
    })
    return () => {
      isOpen = false
    }
  }, [])

  useEffect(() => {
    if (version) title.current?.focus()
  }, [version])

  function save(event: FormEvent<HTMLFormElement>) {
    event.preventDefault()
    if (!version) return
    const form = new FormData(event.currentTarget)
    const fields = { title: String(form.get('title')), description: String(form.get('description')) || null }
    const isChanged = fields.title !== version.data.title || fields.description !== version.data.description
    if (isChanged) onSave(fields, version.etag)
    onClose()
  }

  return (
    <Dialog title="Edit task" onClose={onClose}>
      {version ? (
        <form onSubmit={save}>
          <label>
            Title
            <input ref={title} name="title" defaultValue={version.data.title} required autoComplete="off" />
          </label>
          <label>
            Description
            <textarea name="description" rows={4} defaultValue={version.data.description ?? ''} />
          </label>
          <div className="actions">
            <button type="button" onClick={onClose}>
              Cancel
            </button>
            <button className="primary" type="submit">
              Save
            </button>
          </div>
        </form>
      ) : (
        <p>Reading the newest version…</p>
      )}
    </Dialog>
  )
}
