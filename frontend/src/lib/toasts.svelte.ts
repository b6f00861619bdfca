// One line at the foot of the page that says what just happened, with a way back where there is one.

export interface Toast {
  id: number;
  text: string;
  kind: "done" | "trouble";
  action?: { label: string; run: () => void };
}

const SHOWN_MS = { done: 6000, trouble: 12000 };
let next = 0;
export const toasts: Toast[] = $state([]);

export function say(text: string, kind: Toast["kind"] = "done", action?: Toast["action"]): void {
  const id = next++;
  toasts.splice(0, Math.max(0, toasts.length - 2));
  toasts.push({ id, text, kind, ...(action && { action }) });
  setTimeout(() => dismiss(id), SHOWN_MS[kind]);
}

export function dismiss(id: number): void {
  const at = toasts.findIndex((one) => one.id === id);
  if (at >= 0) toasts.splice(at, 1);
}
