// What the page knows of the run: read from the server, and read again when an event says that it changed.
import * as api from "../api";
import type { Details, Job, Layout, LevelView, Run } from "../api";
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
  details = $state.raw<Details | null>(null);
  layout = $state.raw<Layout | null>(null);
  failure = $state("");
  loading = $state(false);
  #turn = 0;
  #asked = "";

  async load(slug: string, ask: { sort: Sort; q: string; also: string; level: string }): Promise<void> {
    const turn = ++this.#turn;
    if (slug !== this.slug) {
      this.slug = slug;
      this.details = null;
      this.layout = null;
    }
    if (!slug) return;
    this.loading = true;
    try {
      const groups = Number(ask.level);
      const [details, layout, level] = await Promise.all([api.details(slug), api.layout(slug, ask), groups ? api.levelView(slug, groups) : null]);
      if (turn !== this.#turn) return; // a later question was asked meanwhile
      const seen = level ? atLevel(details, layout, level) : { details, layout };
      const same = this.#asked === JSON.stringify([slug, ask]);
      this.#asked = JSON.stringify([slug, ask]);
      this.details = seen.details;
      this.layout = same && this.layout ? inOrderOf(this.layout, seen.layout) : seen.layout;
      this.failure = "";
    } catch (error) {
      if (turn === this.#turn) this.failure = api.told(error);
    } finally {
      if (turn === this.#turn) this.loading = false;
    }
  }

  name(cluster: number | null): string {
    if (cluster === null) return t("unassigned");
    return this.details?.cluster_list.find((one) => one.id === cluster)?.name ?? String(cluster);
  }
}

/** The pictures in other sections, or in the same in another order. Places are into the old layout. */
function arranged(layout: Layout, groups: [number | null, number[]][]): Layout {
  const order: number[] = [];
  const sections: Layout["sections"] = [];
  for (const [cluster, places] of groups) {
    sections.push({ cluster, start: order.length, count: places.length });
    for (const place of places) order.push(place);
  }
  const person = new Set(layout.decided_by_person);
  const pick = <T>(column: T[]): T[] => order.map((at) => column[at]!);
  const byPerson = order.flatMap((at, place) => (person.has(at) ? [place] : []));
  return { ...layout, sections, ids: pick(layout.ids), aspect: pick(layout.aspect), confidence: pick(layout.confidence), decided_by_person: byPerson };
}

/** The clusters in the order in which they stood: one that grew by a picture does not jump away under the hand. */
function inOrderOf(before: Layout, layout: Layout): Layout {
  const rank = new Map(before.sections.map((one, at) => [one.cluster, at]));
  const last = before.sections.length; // a new cluster comes after those that were there, and before the unassigned
  const place = (cluster: number | null): number => (cluster === null ? last + 1 : (rank.get(cluster) ?? last));
  const sections = layout.sections.toSorted((a, b) => place(a.cluster) - place(b.cluster));
  if (sections.every((one, at) => one === layout.sections[at])) return layout;
  return arranged(layout, sections.map(({ cluster, start, count }) => [cluster, Array.from({ length: count }, (_, at) => start + at)]));
}

/** The same pictures, in the groups of another level. Within a group they keep their order. */
function atLevel(details: Details, layout: Layout, level: LevelView): { details: Details; layout: Layout } {
  const groupOf = new Map(level.ids.map((id, at) => [id, level.group_of[at] ?? null]));
  const members = new Map<number | null, number[]>(level.groups.map((one) => [one.id, []]));
  members.set(null, []);
  layout.ids.forEach((id, at) => (members.get(groupOf.get(id) ?? null) ?? members.get(null)!).push(at));
  return {
    layout: arranged(layout, [...members]),
    details: {
      ...details,
      cluster_list: level.groups.map((group) => {
        const parts = details.cluster_list.filter((one) => group.clusters.includes(one.id));
        const images = parts.reduce((sum, one) => sum + one.images, 0) || 1;
        return {
          id: group.id,
          name: group.name,
          definition: parts.length > 1 ? parts.map((one) => one.name).join(", ") : (parts[0]?.definition ?? ""),
          size: group.size,
          images: members.get(group.id)?.length ?? 0,
          confidence: parts.reduce((sum, one) => sum + one.confidence * one.images, 0) / images,
          histogram: parts.length ? parts[0]!.histogram.map((_, bin) => parts.reduce((sum, one) => sum + one.histogram[bin]!, 0)) : [],
          misplaced: null,
          parent: "",
          exemplars: group.exemplars,
          decided_by_person: 0,
        };
      }),
    },
  };
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
