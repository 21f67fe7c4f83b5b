const icon = (path: string) => () => (
  <svg viewBox="0 0 24 24" width="20" height="20" aria-hidden="true">
    <path
      d={path}
      fill="none"
      stroke="currentColor"
      strokeWidth="1.8"
      strokeLinecap="round"
      strokeLinejoin="round"
    />
  </svg>
)

export const EditIcon = icon('M4 20h4L19 9l-4-4L4 16zM13 7l4 4')
export const DeleteIcon = icon('M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10.5 11v5M13.5 11v5')
export const CloseIcon = icon('m6 6 12 12M18 6 6 18')

export const Logo = () => <img className="logo" src="/icon.svg" alt="" />
