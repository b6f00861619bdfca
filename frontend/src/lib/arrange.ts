// The same pictures in other sections: another order of the clusters, or another level of the tree. Pure.
import type { Cluster, Details, Layout, Levels } from "../api";

/** Places are into the old layout. */
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
export function inOrderOf(before: Layout, layout: Layout): Layout {
  const rank = new Map(before.sections.map((one, at) => [one.cluster, at]));
  const last = before.sections.length; // a new cluster comes after those that were there, and before the unassigned
  const place = (cluster: number | null): number => (cluster === null ? last + 1 : (rank.get(cluster) ?? last));
  const sections = layout.sections.toSorted((a, b) => place(a.cluster) - place(b.cluster));
  if (sections.every((one, at) => one === layout.sections[at])) return layout;
  return arranged(layout, sections.map(({ cluster, start, count }) => [cluster, Array.from({ length: count }, (_, at) => start + at)]));
}

interface Cut {
  /** The group of each leaf, called by one of its leaves. */
  of: number[];
  names: Map<number, string>;
  /** Leaves in the order of the whole tree, so that what merges stands side by side. */
  order: number[];
}

function cut(levels: Levels, groups: number): Cut {
  const of = levels.leaves.map((_, at) => at);
  const names = new Map(levels.leaves.map((leaf, at) => [at, leaf.name]));
  const chains = new Map(levels.leaves.map((_, at) => [at, [at]]));
  levels.joins.forEach((join, at) => {
    const [kept, gone] = [chains.get(join.kept) ?? [], chains.get(join.gone) ?? []];
    chains.set(join.kept, [...kept, ...gone]);
    chains.delete(join.gone);
    if (at >= levels.most - groups) return; // the order is of all joins, the groups of the first ones
    for (const leaf of gone) of[leaf] = join.kept;
    names.set(join.kept, join.name);
  });
  return { of, names, order: [...chains.values()].flat() };
}

const BINS = 10;

/** The pictures in so many groups. Within a group they keep their order. */
export function atLevel(details: Details, layout: Layout, levels: Levels, groups: number): { details: Details; layout: Layout } {
  const { of, names, order } = cut(levels, groups);
  const leafOf = new Map(levels.ids.map((id, at) => [id, levels.leaf_of[at]!]));
  const members = new Map<number | null, number[]>();
  for (const leaf of order) if (!members.has(of[leaf]!)) members.set(of[leaf]!, []);
  members.set(null, []);
  layout.ids.forEach((id, at) => {
    const leaf = leafOf.get(id);
    members.get(leaf === undefined ? null : of[leaf]!)!.push(at);
  });
  const named = new Map(details.cluster_list.map((one) => [one.id, one.name]));
  const list: Cluster[] = [];
  for (const [group, places] of members) {
    if (group === null) continue;
    const leaves = levels.leaves.filter((_, at) => of[at] === group);
    const sure = places.flatMap((place) => layout.confidence[place] ?? []);
    const histogram = new Array<number>(BINS).fill(0);
    for (const one of sure) histogram[Math.min(BINS - 1, Math.floor(one / BINS))]!++;
    const parts = [...new Set(leaves.map((leaf) => named.get(leaf.cluster) ?? leaf.name))];
    list.push({
      id: group,
      name: names.get(group) ?? "", // made of its parts below, where another group is called the same
      definition: parts.length > 1 ? parts.join(", ") : "",
      size: leaves.reduce((sum, leaf) => sum + leaf.size, 0),
      images: places.length,
      confidence: sure.reduce((sum, one) => sum + one, 0) / Math.max(1, sure.length) / 100,
      histogram,
      misplaced: null,
      parent: "",
      exemplars: leaves[0]?.exemplars ?? [],
      decided_by_person: 0,
    });
  }
  const clash = new Set(list.map((one) => one.name).filter((name, at, all) => all.indexOf(name) !== at));
  for (const one of list) {
    const parts = one.definition.split(", ");
    if (one.definition && clash.has(one.name)) one.name = parts.slice(0, 3).join(", ") + (parts.length > 3 ? " …" : "");
  }
  return { layout: arranged(layout, [...members]), details: { ...details, cluster_list: list } };
}
