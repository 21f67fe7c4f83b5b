let baseUrl = ''

export const setBaseUrl = (url: string) => {
  baseUrl = url
}

/** Every function that orval generates sends its request through this one: see orval.config.ts. */
export async function orvalFetch<T>(path: string, init: RequestInit): Promise<T> {
  const response = await fetch(baseUrl + path, init)
  const text = await response.text()
  const { status, headers } = response
  return { data: text ? JSON.parse(text) : undefined, status, headers } as T
}
