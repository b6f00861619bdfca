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

  /** The name of a cluster as it is shown, for the line that says what was done. */
  nameOf: (slug: string, cluster: number) => string = () => "";

  #text(slug: string, correction: Correction): string {
    const did = t("did");
    switch (correction.kind) {
      case "move":
        return did.move(correction.images.length, this.nameOf(slug, correction.to));
      case "new":
        return did.new(correction.images.length, correction.name);
      case "merge":
        return did.merge(correction.clusters.length, this.nameOf(slug, correction.clusters[0]!));
      case "split":
        return did.split(correction.images.length);
      case "rename":
        return did.rename(1, correction.name);
      case "not":
        return did.not(correction.images.length, this.nameOf(slug, correction.cluster));
      case "unassign":
        return did.unassign(correction.images.length);
      case "confirm":
        return did.confirm(correction.images.length, this.nameOf(slug, correction.cluster));
    }
  }

  note(slug: string, told: { can_undo: boolean; can_redo: boolean }): void {
    this.canUndo[slug] = told.can_undo;
    this.canRedo[slug] = told.can_redo;
  }

  async #done(slug: string, work: () => Promise<api.Corrected>, text: (told: string) => string, canUndo: boolean, quiet = false): Promise<api.Corrected | undefined> {
    this.busy = true;
    const told = await attempt(work);
    this.busy = false;
    if (!told) return undefined;
    this.note(slug, told);
    library.versions[slug] = told.version;
    this.version += 1;
    if (!quiet) say(text(told.text), "done", canUndo ? { label: t("undo"), run: () => void this.undo(slug) } : undefined);
    void library.load();
    return told;
  }

  async say(slug: string, correction: Correction, quiet = false): Promise<api.Corrected | undefined> {
    const told = await this.#done(slug, () => api.correct(slug, correction), () => this.#text(slug, correction), true, quiet);
    if (told && "images" in correction) selection.clear();
    return told;
  }

  undo(slug: string): Promise<api.Corrected | undefined> {
    return this.#done(slug, () => api.undo(slug), t("undone"), false);
  }

  redo(slug: string): Promise<api.Corrected | undefined> {
    return this.#done(slug, () => api.redo(slug), t("redone"), true);
  }
}

export const corrections = new Corrections();
