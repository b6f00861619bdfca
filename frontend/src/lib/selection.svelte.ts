// Which pictures are chosen. One selection for the page: a picture chosen on the map is chosen in the gallery.

class Selection {
  ids = $state.raw<ReadonlySet<string>>(new Set());
  /** Where a range starts that shift extends. */
  anchor = "";

  get size(): number {
    return this.ids.size;
  }

  has(id: string): boolean {
    return this.ids.has(id);
  }

  set(ids: Iterable<string>): void {
    this.ids = new Set(ids);
  }

  add(ids: Iterable<string>): void {
    this.ids = new Set([...this.ids, ...ids]);
  }

  toggle(id: string): void {
    const after = new Set(this.ids);
    if (!after.delete(id)) after.add(id);
    this.ids = after;
    this.anchor = id;
  }

  clear(): void {
    if (this.ids.size) this.ids = new Set();
    this.anchor = "";
  }
}

export const selection = new Selection();
