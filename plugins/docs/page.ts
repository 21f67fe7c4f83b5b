/** An HTML page. `head` and `body` are HTML, `title` is a text without markup. */
export const htmlPage = (title: string, head: string, body: string) => `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<link rel="icon" href="${FAVICON}">
${head}
</head>
<body>
${body}
</body>
</html>
`

/**
 * The documentation page: Swagger UI without its top bar. The bar has an "Explore" field, and an inline style that the
 * page's policy blocks.
 *
 * @param base relative path from the page to the folder of its files
 */
export const pageHtml = (base: string, hasGuides: boolean) =>
  htmlPage(
    'Tasks API',
    `<link rel="stylesheet" href="${base}swagger-ui.css">
<link rel="stylesheet" href="${base}page.css">
<script src="${base}swagger-ui-bundle.js" defer></script>
<script src="${base}page.js" defer></script>`,
    `${hasGuides ? `<nav><a href="${base}guides/README.md">Guides</a></nav>\n` : ''}<div id="swagger-ui"></div>`
  )

const FAVICON =
  "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E" +
  "%3Crect width='32' height='32' rx='7' fill='%231b6e53'/%3E" +
  "%3Cpath d='M8 17l6 6L25 10' fill='none' stroke='white' stroke-width='4'/%3E%3C/svg%3E"

export const PAGE_JS = `const here = document.currentScript.src
const KEPT = 'authorized'

/** Keeps the token until the tab is closed. Swagger UI would keep it in localStorage for ever. */
const keepToken = () => ({
  statePlugins: {
    auth: {
      wrapActions: {
        persistAuthorizationIfNeeded: (_original, { authSelectors }) => () => {
          sessionStorage.setItem(KEPT, JSON.stringify(authSelectors.authorized()))
          return { type: 'kept' }
        }
      }
    }
  }
})

/** Folds each error into one line. Unfolded, an operation is more than 4,000 px high. */
const foldErrors = ({ React: { createElement } }) => ({
  wrapComponents: {
    response: (Response) => (props) => {
      const row = createElement(Response, props)
      if (props.code.startsWith('2')) return row
      const Markdown = props.getComponent('Markdown', true)
      const summary = createElement(
        'summary',
        null,
        createElement('b', null, props.code),
        createElement(Markdown, { source: props.response.get('description') })
      )
      const details = createElement('table', null, createElement('tbody', null, row))
      return createElement(
        'tr',
        { className: 'folded' },
        createElement('td', { colSpan: 3 }, createElement('details', null, summary, details))
      )
    }
  }
})

const ui = SwaggerUIBundle({
  dom_id: '#swagger-ui',
  url: new URL('../openapi.json', here).href,
  validatorUrl: null,
  deepLinking: true,
  docExpansion: 'list',
  defaultModelExpandDepth: 1,
  defaultModelsExpandDepth: 0,
  tryItOutEnabled: true,
  plugins: [keepToken, foldErrors],
  onComplete() {
    const kept = sessionStorage.getItem(KEPT)
    if (kept) ui.authActions.restoreAuthorization({ authorized: JSON.parse(kept) })
  }
})
`

export const PAGE_CSS = `html { box-sizing: border-box; }
*, *::before, *::after { box-sizing: inherit; }
body { margin: 0; background: #fafafa; }
nav { max-width: 1460px; margin: 0 auto; padding: 1rem 1.25rem 0; font: 1rem system-ui, sans-serif; text-align: right; }
nav a { color: #2563a8; }
.swagger-ui .info { margin: 1rem 0 1.5rem; }
.swagger-ui .response-col_links { display: none; }
.swagger-ui .try-out .btn { min-width: 0; padding: 5px 12px; }
.swagger-ui .folded details > summary { padding: 0.4rem 0; cursor: pointer; font-size: 0.875rem; }
.swagger-ui .folded summary b { margin-right: 1rem; }
.swagger-ui .folded summary div, .swagger-ui .folded summary p { display: inline; margin: 0; }
.swagger-ui .folded .response-col_status, .swagger-ui .folded .response-col_description__inner { display: none; }
`
