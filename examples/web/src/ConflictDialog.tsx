import { Dialog } from './Dialog'
import type { Conflict, Fields } from './useTasks'

interface Props {
  conflict: Conflict
  onKeepMine: () => void
  onKeepTheirs: () => void
}

export function ConflictDialog({ conflict: { theirs, mine }, onKeepMine, onKeepTheirs }: Props) {
  return (
    <Dialog title="This task was changed elsewhere" onClose={onKeepTheirs}>
      <p>
        While you were editing it, it was saved in another tab or on another device. Which version do you want
        to keep?
      </p>
      <Version name="The other version" fields={theirs} />
      <Version name="Your version" fields={mine} />
      <div className="actions">
        <button type="button" onClick={onKeepTheirs}>
          Keep the other version
        </button>
        <button className="primary" type="button" onClick={onKeepMine}>
          Save my version
        </button>
      </div>
    </Dialog>
  )
}

const Version = ({ name, fields }: { name: string; fields: Fields }) => (
  <section className="version" aria-label={name}>
    <h3>{name}</h3>
    <p className="title">{fields.title}</p>
    {fields.description && <p className="description">{fields.description}</p>}
  </section>
)
