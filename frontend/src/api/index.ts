// What the page asks the server. Types come from the server's own description (openapi.json); `npm run client` makes them.
import createClient from "openapi-fetch";

import type { components, paths } from "./schema";

type Schemas = components["schemas"];
/** Pairs of numbers come back from the client as lists of numbers. */
type Loose<T> = { [K in keyof T]: T[K] extends [number, number] ? number[] : T[K] extends [number, number] | null ? number[] | null : T[K] };
export type Run = Schemas["Run"];
export type Summary = Schemas["InterestSummary"];
export type Details = Schemas["InterestDetail"];
export type Cluster = Schemas["ClusterOut"];
export type Layout = Schemas["Layout"];
export type ImageItem = Schemas["ImageItem"];
export type ImageDetail = Schemas["ImageDetail"];
export type Place = Schemas["Place"];
export type Asked = Schemas["Asked"];
export type Neighbours = Schemas["Neighbours"];
export type MapPoints = Schemas["MapPoints"];
export type Cross = Schemas["Cross"];
export type Correction =
  | Schemas["Move"] | Schemas["New"] | Schemas["Merge"] | Schemas["Split"]
  | Schemas["Rename"] | Schemas["NotThis"] | Schemas["Unassign"] | Schemas["Confirm"];
export type Corrected = Schemas["Corrected"];
export type ReSorted = Loose<Schemas["ReSorted"]>;
export type Review = Schemas["Review"];
export type ReviewItem = Schemas["ReviewItem"];
export type Levels = Schemas["Levels"];
export type Job = Loose<Schemas["Job"]>;
export type NewJob = Schemas["NewJob"];
export type Plan = Loose<Schemas["PlanOut"]>;
/** Of answers about a sample the page needs all but the job, which it hears of anyway. */
export type Suggestions = Omit<Schemas["SuggestionsOut"], "job">;
export type Preview = Omit<Schemas["PreviewOut"], "job">;
export type Compared = Schemas["Compared"];
export type Comparable = Schemas["Comparable"];
export type NewExport = Schemas["NewExport"];
export type ExportDone = Schemas["ExportDone"];
export type Formats = Schemas["Formats"];
export type Share = Schemas["Share"];

/** A refusal of the server: the rule with the value got, and the cure. */
export class Refusal extends Error {
  constructor(
    readonly rule: string,
    readonly hint: string,
    readonly status: number,
  ) {
    super(rule);
  }
}

const client = createClient<paths>({ baseUrl: "/", headers: { Accept: "application/json" }, credentials: "same-origin" });

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

async function got<T>(asked: Promise<Answer<T>>): Promise<T> {
  let answer: Answer<T>;
  try {
    answer = await asked;
  } catch {
    throw new Refusal("the server does not answer", "is manylens open still running? the page goes on when it is back", 0);
  }
  if (answer.data !== undefined && answer.response.ok) return answer.data;
  const problem = answer.error as { rule?: unknown; hint?: unknown } | undefined;
  throw new Refusal(
    typeof problem?.rule === "string" ? problem.rule : `${answer.response.status} ${answer.response.statusText}`,
    typeof problem?.hint === "string" ? problem.hint : "",
    answer.response.status,
  );
}

/** An error as one line for a person. */
export const told = (error: unknown): string =>
  error instanceof Refusal ? error.rule + (error.hint ? `: ${error.hint}` : "") : error instanceof Error ? error.message : String(error);

export const run = (): Promise<Run> => got(client.GET("/api/run"));
export const jobs = async (): Promise<Job[]> => (await got(client.GET("/api/jobs"))).jobs;
export const details = (slug: string): Promise<Details> => got(client.GET("/api/interests/{slug}", { params: { path: { slug } } }));

export interface Ask {
  sort: "confidence" | "-confidence" | "path";
  q: string;
  also: string; // "slug:cluster" of another interest
}
/** All pictures that pass, as columns, cluster by cluster. */
export const layout = (slug: string, ask: Ask): Promise<Layout> =>
  got(
    client.GET("/api/interests/{slug}/layout", {
      params: { path: { slug }, query: { sort: ask.sort, ...(ask.q && { q: ask.q }), ...(ask.also && { with: [ask.also] }) } },
    }),
  );

export const image = (key: string): Promise<ImageDetail> => got(client.GET("/api/images/{key}", { params: { path: { key } } }));
export const neighbours = (key: string, interest: string): Promise<Neighbours> =>
  got(client.GET("/api/images/{key}/neighbours", { params: { path: { key }, query: { interest, limit: 15 } } }));
export const thumbnail = (key: string, size: "small" | "large"): string => `/api/images/${encodeURIComponent(key)}/thumbnail?size=${size}`;
export const full = (key: string): string => `/api/images/${encodeURIComponent(key)}/full`;
export const showInFolder = (key: string) => got(client.POST("/api/images/{key}/show-in-folder", { params: { path: { key } } }));

export const cross = (a: string, b: string): Promise<Cross> => got(client.GET("/api/cross", { params: { query: { a, b } } }));
export const map = (slug: string): Promise<MapPoints> => got(client.GET("/api/interests/{slug}/map", { params: { path: { slug } } }));
export const levels = (slug: string): Promise<Levels> => got(client.GET("/api/interests/{slug}/levels", { params: { path: { slug } } }));
export const correct = (slug: string, correction: Correction): Promise<Corrected> =>
  got(client.POST("/api/interests/{slug}/corrections", { params: { path: { slug } }, body: correction }));
export const undo = (slug: string): Promise<Corrected> => got(client.POST("/api/interests/{slug}/undo", { params: { path: { slug } } }));
export const redo = (slug: string): Promise<Corrected> => got(client.POST("/api/interests/{slug}/redo", { params: { path: { slug } } }));
export const reSort = (slug: string, apply: boolean): Promise<ReSorted> =>
  got(client.POST("/api/interests/{slug}/re-sort", { params: { path: { slug } }, body: { apply } }));
export const askReSort = (slug: string): Promise<Job> =>
  got(client.POST("/api/interests/{slug}/re-sort/ask", { params: { path: { slug } }, body: {} }));
export const review = (slug: string, skipped: string[], limit = 20): Promise<Review> =>
  got(client.GET("/api/interests/{slug}/review", { params: { path: { slug }, query: { limit, skipped } } }));

export const plan = (body: NewJob): Promise<Plan> => got(client.POST("/api/jobs/plan", { body }));
export const startJob = (body: NewJob): Promise<Job> => got(client.POST("/api/jobs", { body }));
export const suggestions = (): Promise<Suggestions> => got(client.GET("/api/suggest"));
export const preview = (by: string): Promise<Preview> => got(client.GET("/api/preview", { params: { query: { by } } }));
export const cancelJob = (number: number): Promise<Job> => got(client.DELETE("/api/jobs/{number}", { params: { path: { number } } }));
export const continueJob = (number: number): Promise<Job> => got(client.POST("/api/jobs/{number}/continue", { params: { path: { number } } }));

export const comparable = (): Promise<Comparable> => got(client.GET("/api/comparable"));
export const compare = (here: string, there: string, of_other: boolean): Promise<Compared> =>
  got(client.GET("/api/compare", { params: { query: { here, there, of_other, limit: 400 } } }));
export const formats = (): Promise<Formats> => got(client.GET("/api/formats"));
export const exportTo = (body: NewExport): Promise<ExportDone> => got(client.POST("/api/export", { body }));
export const command = (): Promise<Schemas["Command"]> => got(client.GET("/api/command"));

/** Server-sent events: what changed in the run folder, whoever changed it. */
export function events(on: { changed: (versions: Record<string, number> | null) => void; job: (job: Job) => void; connected: (open: boolean) => void }): { close: () => void } {
  let source: EventSource | undefined;
  let again: ReturnType<typeof setTimeout> | undefined;
  const listen = () => {
    source = new EventSource("/api/events");
    source.onopen = () => on.connected(true);
    source.onerror = () => {
      on.connected(false);
      // The browser tries again by itself, except where the server refused; then this does, slowly.
      if (source?.readyState === EventSource.CLOSED) again = setTimeout(listen, 3000);
    };
    source.addEventListener("run", (event) => on.changed((JSON.parse((event as MessageEvent<string>).data) as Schemas["RunChanged"]).versions));
    source.addEventListener("corrections", (event) => {
      const { interest, version } = JSON.parse((event as MessageEvent<string>).data) as Schemas["CorrectionsChanged"];
      on.changed({ [interest]: version });
    });
    source.addEventListener("map", () => on.changed(null));
    source.addEventListener("job", (event) => on.job(JSON.parse((event as MessageEvent<string>).data) as Job));
  };
  listen();
  return {
    close: () => {
      clearTimeout(again);
      source?.close();
    },
  };
}
