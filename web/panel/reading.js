// @ts-check
/** Reads what the server knows into the state. */

/** @typedef {ReturnType<typeof createReading>} Reading */

/** @param {import("../host.js").Host} host @param {import("./store.js").Store} store */
export function createReading(host, { state, set, attempt }) {
  let calls = 0;
  /** @type {Promise<void>} */
  let newest = Promise.resolve();

  /** Reads everything that is shown. Of calls that overlap the newest one counts, and all wait for it. */
  function refresh() {
    newest = read(++calls);
    return newest;
  }

  /** @param {number} mine */
  const read = (mine) =>
    attempt(async () => {
      const [{ queries }, { profiles }, running] = await Promise.all([
        host.get("/palate/queries?state=pending"),
        host.get("/palate/profiles"),
        host.isRunning(),
      ]);
      if (mine !== calls) return newest;
      set({ loaded: true, pending: queries, profiles, running, error: null });
      await readProfile(chosenProfile());
      if (state.folds.history) await readPast();
    });

  /** The profile to show: the question's, the one chosen, that of the newest question, the first. */
  function chosenProfile() {
    const names = state.profiles.filter((p) => p.ratings !== null).map((p) => p.name);
    const wanted = state.query?.profile ?? state.profileName ?? state.pending.at(-1)?.profile;
    return wanted && names.includes(wanted) ? wanted : (names[0] ?? null);
  }

  /** @param {string | null} name */
  async function readProfile(name) {
    if (name === null) return set({ profile: null, profileName: null });
    const profile = await host.get(`/palate/profiles/${encodeURIComponent(name)}`);
    if (name === chosenProfile()) set({ profile, profileName: name });
    readStrength();
  }

  /** How strongly the taste shows is told by the open graph, and by nothing else. */
  function readStrength() {
    const { profileName, strength } = state;
    const read = profileName === null ? { values: [], wired: 0 } : host.strength(profileName);
    if (JSON.stringify(read) !== JSON.stringify(strength)) set({ strength: read });
  }

  /** The questions that updates have used, for the history. */
  async function readPast() {
    const { profile } = state;
    if (profile === null) return;
    const key = `${profile.name}/${profile.revisions.at(-1)?.created}`;
    if (key === state.pastOf) return; // only a new revision uses questions
    const path = `/palate/queries?state=used&profile=${encodeURIComponent(profile.name)}`;
    const { queries } = await host.get(path);
    if (profile.name === state.profileName) set({ past: queries, pastOf: key });
  }

  return { refresh, readProfile, readPast, readStrength };
}
