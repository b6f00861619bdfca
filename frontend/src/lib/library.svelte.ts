// What the page knows of the run: read from the server, and read again when an event says that it changed.
import * as api from "../api";
import type { Details, Job, Layout, Levels, Run } from "../api";
import { atLevel, inOrderOf } from "./arrange";
import { route, type Sort } from "./route.svelte";
import { say } from "./toasts.svelte";
import { t } from "./words.svelte";

/** A connection that breaks is mostly back at once; a person is told when it is not. */
const PATIENCE_MS = 4000;

class Library {
  run = $state.raw<Run | null>(null);
  jobs = $state.raw<Job[]>([]);
  /** Grows when an event says that a clustering changed; what depends on it reads again. */
  changes = $state(0);
  connected = $state(true);
  failure = $state("");
  /** Of each clustering, as this page knows it: an event that says the same is no news. */
  versions: Record<string, number> = {};
  #lost: ReturnType<typeof setTimeout> | undefined;

  /** The interest that the address names, or the first. */
  get by(): string {
    const slugs = this.run?.interests.map((one) => one.slug) ?? [];
    return slugs.includes(route.by) ? route.by : (slugs[0] ?? "");
  }

  name(slug: string): string {
    return this.run?.interests.find((one) => one.slug === slug)?.interest ?? slug;
  }

  async load(): Promise<void> {
    try {
      this.run = await api.run();
      this.versions = Object.fromEntries(this.run.interests.map((one) => [one.slug, one.version]));
      this.failure = "";
    } catch (error) {
      this.failure = api.told(error);
    }
    this.jobs = await api.jobs().catch(() => []);
  }

  /** Listens to the server for as long as the page is open. A lost connection is taken up again by the browser. */
  listen(): () => void {
    const source = api.events({
      changed: (versions) => {
        if (!this.run) return; // it is being read, and is newer than the event
        if (versions && Object.entries(versions).every(([slug, version]) => this.versions[slug] === version)) return;
        this.changes += 1;
        void this.load();
      },
      job: (job) => {
        const before = this.jobs.find((one) => one.id === job.id);
        this.jobs = before ? this.jobs.map((one) => (one.id === job.id ? job : one)) : [...this.jobs, job];
        if (before && before.state !== job.state) {
          this.changes += 1;
          void this.load();
        }
      },
      connected: (open) => {
        if (!open) {
          this.#lost ??= setTimeout(() => (this.connected = false), PATIENCE_MS); // from the first failure on, not the last
          return;
        }
        clearTimeout(this.#lost);
        this.#lost = undefined;
        if (!this.connected) {
          this.connected = true;
          this.changes += 1;
          void this.load();
        }
      },
    });
    return () => source.close();
  }
}

export const library = new Library();

/** One interest as it stands before the eye: its clusters, and its pictures in order. */
export class Shelf {
  slug = $state("");
  failure = $state("");
  levels = $state.raw<Levels | null>(null);
  /** How many groups are wanted; 0: as sorted. */
  groups = $state(0);
  #sorted = $state.raw<{ details: Details; layout: Layout } | null>(null);
  #shown = $derived.by(() => {
    const levels = this.levels;
    return this.#sorted && levels && this.groups ? atLevel(this.#sorted.details, this.#sorted.layout, levels, this.groups) : this.#sorted;
  });
  #turn = 0;
  #asked = "";

  get details(): Details | null {
    return this.#shown?.details ?? null;
  }

  get layout(): Layout | null {
    return this.#shown?.layout ?? null;
  }

  async load(slug: string, ask: { sort: Sort; q: string; also: string }): Promise<void> {
    const turn = ++this.#turn;
    if (slug !== this.slug) {
      this.slug = slug;
      this.#sorted = null;
      this.levels = null;
    }
    if (!slug) return;
    try {
      const [details, layout] = await Promise.all([api.details(slug), api.layout(slug, ask)]);
      if (turn !== this.#turn) return; // a later question was asked meanwhile
      const question = JSON.stringify([slug, ask]);
      const same = this.#asked === question && this.#sorted;
      this.#asked = question;
      this.#sorted = { details, layout: same ? inOrderOf(same.layout, layout) : layout };
      this.failure = "";
    } catch (error) {
      if (turn === this.#turn) this.failure = api.told(error);
    }
    if (this.levels?.version !== this.#sorted?.layout.version) {
      const levels = await api.levels(slug).catch(() => null); // a clustering without a tree has no levels
      if (turn === this.#turn) this.levels = levels;
    }
  }

  name(cluster: number | null): string {
    if (cluster === null) return t("unassigned");
    return this.details?.cluster_list.find((one) => one.id === cluster)?.name ?? String(cluster);
  }
}

/** Runs what a person asked for; a refusal is shown, never swallowed. Returns undefined where it failed. */
export async function attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    say(api.told(error), "trouble");
    return undefined;
  }
}
