// What a person corrects: sent at once, undone without limit. The server keeps it; this page shows what the server says.
import * as api from "../api";
import type { Correction } from "../api";
import { attempt, library } from "./library.svelte";
import { selection } from "./selection.svelte";
import { say } from "./toasts.svelte";
import { t } from "./words.svelte";

class Corrections {
  canUndo = $state<Record<string, boolean>>({});
  canRedo = $state<Record<string, boolean>>({});
  busy = $state(false);
  /** How often this page changed a clustering: galleries read again. */
  version = $state(0);

  note(slug: string, told: { can_undo: boolean; can_redo: boolean }): void {
    this.canUndo[slug] = told.can_undo;
    this.canRedo[slug] = told.can_redo;
  }

  async #done(slug: string, work: () => Promise<api.Corrected>, withUndo: boolean): Promise<api.Corrected | undefined> {
    this.busy = true;
    const told = await attempt(work);
    this.busy = false;
    if (!told) return undefined;
    this.note(slug, told);
    this.version += 1;
    say(told.text, "done", withUndo ? { label: t("undo"), run: () => void this.undo(slug) } : undefined);
    void library.load();
    return told;
  }

  async say(slug: string, correction: Correction): Promise<api.Corrected | undefined> {
    const told = await this.#done(slug, () => api.correct(slug, correction), true);
    if (told && "images" in correction) selection.clear();
    return told;
  }

  undo(slug: string): Promise<api.Corrected | undefined> {
    return this.#done(slug, () => api.undo(slug), false);
  }

  redo(slug: string): Promise<api.Corrected | undefined> {
    return this.#done(slug, () => api.redo(slug), false);
  }
}

export const corrections = new Corrections();
