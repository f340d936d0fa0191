// Random flags and users, small enough that conditions often meet what they ask for, odd enough to find corners.

const OPS = {
  text: ['is', 'is not', 'contains', 'does not contain'],
  number: ['less', 'less or equal', 'greater', 'greater or equal'],
  version: ['version less', 'version less or equal', 'version greater', 'version greater or equal'],
  set: ['set is', 'set is not', 'set contains', 'set does not contain', 'set contains any', 'set does not contain any'],
  regex: ['regex match', 'regex does not match'],
};
const WORDS = ['pro', 'Pro', 'free', '', ' ', 'a', 'ab', 'abc', 'É', 'é', 'İx', 'ΣΑΣ', 'σας', '日本', '😀', 'true', 'FALSE', '(none)', 'null', '[', 'x/y'];
const NUMBERS = ['0', '1', '-1', '2', '10', '9', '1.5', '100', '007', '-0', '1e3', ' 5 ', '.5', '5.', '12345678901', 'ten', ''];
const VERSIONS = ['1.2', '1.2.3', '1.10.0', '1.9.9', '2.0.0', '2.0.0-beta', '2.0.0-beta.2', '2.0.0-alpha-x', '01.2.3', '1', '1.2.3.4', 'v1.2.3', ''];
const PATTERNS = ['a+b?c?', '[a-z]*', '.*', 'pro|free', '(?:P|p)ro', '\\d+', '\\w+\\s?', '[^x]+', '日.', '.', '\\(none\\)', '', '(a)(b)?', 'x{1,2}/y', '^ab$'];
const LISTS = [[], ['a'], ['a', 'b'], ['b', 'a', 'a'], ['pro'], ['TRUE', 'x'], [''], ['1', '2'], [1, 2.5, true], ['(none)'], [['a'], 'b'], [null, 'a'], '["a","b"]', '[1,2]', '[]', '["a"', '[{"k":1}]'];
const SELECTORS = [
  ['context', 'user', 'user_id'], ['context', 'user', 'device_id'], ['context', 'user', 'country'], ['context', 'user', 'version'],
  ['context', 'user', 'user_properties', 'plan'], ['context', 'user', 'user_properties', 'age'], ['context', 'user', 'user_properties', 'tags'],
  ['context', 'user', 'user_properties', 'with.dot and space'], ['context', 'user', 'user_properties', 'deep', 'er'],
  ['context', 'user', 'cohort_ids'], ['context', 'user', 'missing'], ['context', 'groups', 'org', 'group_name'],
  ['context', 'groups', 'org', 'group_properties', 'plan'], ['context', 'groups', 'org', 'cohort_ids'], ['context', 'user', 'user_properties', 'flagged'],
];
const BUCKETS = [['context', 'user', 'user_id'], ['context', 'user', 'device_id'], ['context', 'groups', 'org', 'group_name'],
  ['context', 'user', 'user_properties', 'tags'], ['context', 'user', 'user_properties', 'age'], ['context', 'user', 'missing']];

/** A source of numbers that a seed repeats. */
export function dice(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (end) => Math.floor(next() * end);
  return {
    below,
    chance: (share) => next() < share,
    pick: (list) => list[below(list.length)],
    some: (list, most) => Array.from({ length: below(most + 1) }, () => list[below(list.length)]),
  };
}

/** A case: flags whose dependencies have no cycle, a user, and sometimes flag keys. */
export function generate(seed) {
  const die = dice(seed);
  const names = Array.from({ length: 1 + die.below(8) }, (_, at) => `${die.pick(['flag', 'ΩF', 'f.x', 'exp-'])}${at}`);
  const flags = names.map((key, at) => flag(die, key, names.slice(0, at)));
  if (die.chance(0.5)) flags.reverse();
  const made = { flags, user: user(die) };
  if (die.chance(0.3)) made.flagKeys = [...die.some(names, 3), die.pick(names), ...die.some(['unknown'], 1)];
  return made;
}

function flag(die, key, earlier) {
  const variants = {};
  for (const name of ['on', 'off', 'control', 'treatment'].slice(0, 1 + die.below(4))) variants[name] = variant(die, name);
  const made = { key, variants, segments: Array.from({ length: die.below(5) }, () => segment(die, key, Object.keys(variants), earlier)) };
  if (earlier.length && die.chance(0.6)) made.dependencies = [...new Set([...die.some(earlier, 2), ...die.some(['unknown'], 1)])];
  made.metadata = { flagVersion: die.below(50), deployed: die.chance(0.9), ...(die.chance(0.3) && { experimentKey: `exp-${die.below(4)}`, none: null }) };
  return made;
}

function variant(die, name) {
  const made = { key: die.chance(0.95) ? name : `${name} renamed` };
  if (die.chance(0.8)) made.value = die.pick([name, 'ü', 7, false, ['x', null], { a: { b: 1.25 } }]);
  if (die.chance(0.4)) made.payload = die.pick([{ n: 1, list: [1, null, 'x'] }, [], 'text', 12.5, true, { '': {} }]);
  if (name === 'off' || die.chance(0.1)) made.metadata = { default: name === 'off' };
  return made;
}

function segment(die, key, variants, earlier) {
  const made = { metadata: { segmentName: die.pick(['Pro', 'All Other Users', 'ß']) } };
  if (die.chance(0.8)) made.conditions = Array.from({ length: die.below(3) }, () => Array.from({ length: die.below(4) }, () => condition(die, earlier)));
  if (die.chance(0.85)) made.variant = die.pick([...variants, ...variants, 'not a variant']);
  if (die.chance(0.5)) made.bucket = bucket(die, key, variants);
  if (die.chance(0.1)) delete made.metadata;
  return made;
}

function bucket(die, key, variants) {
  const width = Math.ceil(42949673 / variants.length);
  const distributions = variants.map((name, at) => ({ variant: name, range: [at * width - (die.chance(0.3) ? 1 : 0), (at + 1) * width] }));
  if (die.chance(0.2)) distributions.pop();
  const cut = die.below(101);
  const allocations = die.pick([[[0, 100]], [[0, cut]], [[0, cut], [cut, 100]], [[cut, 100], [0, 100]], []]);
  return {
    selector: die.pick(BUCKETS),
    salt: die.pick([key, `${key}-salt`, '', 'ß/']),
    allocations: allocations.map((range) => ({ range, distributions: die.chance(0.9) ? distributions : [] })),
  };
}

function condition(die, earlier) {
  if (earlier.length && die.chance(0.25)) {
    const selector = ['result', die.pick([...earlier, 'unknown']), die.pick(['key', 'key', 'value', 'metadata'])];
    if (selector[2] === 'metadata') selector.push(die.pick(['segmentName', 'default', 'flagVersion', 'none']));
    return { selector, op: die.pick([...OPS.text, ...OPS.set]), values: die.some(['on', 'off', 'control', 'true', '7', 'Pro', '(none)'], 3) };
  }
  const kind = die.pick(Object.keys(OPS));
  const values = { text: WORDS, number: NUMBERS, version: VERSIONS, set: ['a', 'b', 'pro', 'c1', 'c2', '1', '2', '2.5', 'true', '', '(none)'], regex: PATTERNS }[kind];
  return { selector: die.pick(SELECTORS), op: die.chance(0.98) ? die.pick(OPS[kind]) : 'IS', values: die.some(die.chance(0.9) ? values : WORDS.filter((word) => kind !== 'regex' || word !== '['), 4) };
}

function user(die) {
  const made = {};
  const maybe = (target, name, give) => { if (die.chance(0.75)) target[name] = give(); };
  const scalar = () => die.pick([...WORDS, 0, 1, -1, 10, 1.5, 123456789, true, false, null]);
  maybe(made, 'user_id', () => die.pick(['u-1', `u-${die.below(100000)}`, 'ü😀', '', '42']));
  maybe(made, 'device_id', () => `${die.below(100000)}`);
  maybe(made, 'country', () => die.pick(WORDS));
  maybe(made, 'version', () => die.pick(VERSIONS));
  maybe(made, 'cohort_ids', () => die.some(['c1', 'c2', 'c3'], 3));
  maybe(made, 'groups', () => ({ org: die.pick([['acme'], ['acme', 'x'], [], ['ü 1']]), other: ['z'] }));
  if (die.chance(0.6)) made.group_properties = { org: { acme: { plan: scalar() }, 'ü 1': { plan: die.pick(LISTS) } } };
  if (die.chance(0.4)) made.group_cohort_ids = { org: { acme: die.some(['c1', 'c2'], 2) } };
  const properties = {};
  maybe(properties, 'plan', scalar);
  maybe(properties, 'age', () => die.pick([...NUMBERS, 0, 7, 9, 10, 1.5, -1, 12345678901]));
  maybe(properties, 'tags', () => die.pick(LISTS));
  maybe(properties, 'with.dot and space', scalar);
  maybe(properties, 'flagged', () => die.pick([true, false, 'True', 'no']));
  maybe(properties, 'deep', () => die.pick([{ er: 'pro' }, { er: { x: 1, y: [true, null] } }, 'flat', ['er'], { er: null }]));
  maybe(made, 'user_properties', () => properties);
  return made;
}
