import { memo } from 'react'
import { flushSync } from 'react-dom'
import type { Task } from './api'
import { DeleteIcon, EditIcon } from './icons'

interface Props {
  task: Task
  /** True until the service has created the task. */
  isDraft: boolean
  onToggle: (task: Task, completed: boolean) => void
  onEdit: (task: Task) => void
  onDelete: (task: Task) => void
}

/** Memoised, so that with thousands of tasks only changed rows are rendered. */
export const TaskRow = memo(function TaskRow({ task, isDraft, onToggle, onEdit, onDelete }: Props) {
  return (
    <li className={task.completed ? 'task completed' : 'task'} aria-busy={isDraft}>
      <label>
        <input
          type="checkbox"
          checked={task.completed}
          disabled={isDraft}
          onChange={({ currentTarget: box }) => keepFocus(box, () => onToggle(task, box.checked))}
        />
        <span className="title">{task.title}</span>
      </label>
      {task.description && <p className="description">{task.description}</p>}
      <span className="buttons">
        <button
          type="button"
          aria-label={`Edit ${task.title}`}
          disabled={isDraft}
          onClick={() => onEdit(task)}
        >
          <EditIcon />
        </button>
        <button
          type="button"
          aria-label={`Delete ${task.title}`}
          disabled={isDraft}
          onClick={({ currentTarget }) => keepFocus(currentTarget, () => onDelete(task))}
        >
          <DeleteIcon />
        </button>
      </span>
    </li>
  )
})

/** Moves the focus to a neighbour when the change removes the row. Otherwise it would move to the top of the page. */
function keepFocus(control: HTMLElement, change: () => void) {
  const row = control.closest('li')
  const neighbour = row?.nextElementSibling ?? row?.previousElementSibling
  flushSync(change)
  if (control.isConnected) return
  const next = neighbour?.querySelector('input') ?? document.querySelector<HTMLElement>('#new-task')
  next?.focus()
}
