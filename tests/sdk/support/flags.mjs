// The flags of the fake cloud: one of each kind that people use, with answers that tell users and versions apart.

const OFF = { key: 'off', metadata: { default: true } };

/** The whole set; `version` stands in every flag's metadata and in a payload, so that an answer shows its age. */
export function flags(version = 1) {
  return [
    { ...release('theme', 'local', version), variants: { on: { key: 'on', value: 'on', payload: { version } }, off: OFF },
      segments: [when(['context', 'user', 'user_properties', 'plan'], 'is', ['pro', '企業'], 'on', 'Paying'), rest()] },
    split('checkout', 'remote', version, 'user_id', ['control', 'treatment'], { experimentKey: 'exp-1' }),
    split('layout', 'local', version, 'device_id', ['a', 'b', 'c']),
    { ...release('banner', 'remote', version), variants: onOff(),
      segments: [when(['context', 'user', 'country'], 'is', ['DE', 'São Tomé'], 'on', 'Places'), rest()] },
    split('slots', 'remote', version, 'user_id', ['slot-1', 'slot-2'], { flagType: 'mutual-exclusion-group' }),
    { ...release('sale', 'remote', version), dependencies: ['slots'], variants: onOff(),
      segments: [when(['result', 'slots', 'key'], 'is not', ['slot-1'], 'off', 'Not my slot'),
        bucketed('user_id', 'sale', ['on', 'off'])] },
    { ...release('seats', 'local', version), variants: { big: { key: 'big', value: 'big', payload: [1, null, 'x'] }, off: OFF },
      segments: [when(['context', 'groups', 'org', 'group_properties', 'seats'], 'greater', ['50'], 'big', 'Big'), rest()] },
    { ...release('fresh', 'local', version), variants: onOff(),
      segments: [when(['context', 'user', 'version'], 'version greater or equal', ['2.10.0'], 'on', 'New'), rest()] },
    { ...release('staff', 'remote', version), variants: onOff(),
      segments: [when(['context', 'user', 'user_properties', 'email'], 'regex match', ['^.+@example\\.com$'], 'on', 'Ours'), rest()] },
    { ...release('tags', 'local', version), variants: onOff(),
      segments: [when(['context', 'user', 'user_properties', 'tags'], 'set contains any', ['β', 'x?>y'], 'on', 'Tagged'), rest()] },
    { ...release('shadow', 'local', version, { deployed: false }), variants: onOff(), segments: [{ ...rest(), variant: 'on' }] },
  ];
}

/** A flag that asks for the members of a user cohort and one for those of a group cohort. */
export function cohortFlags(version = 1) {
  return [
    { ...release('vip', 'local', version), variants: onOff(),
      segments: [when(['context', 'user', 'cohort_ids'], 'set contains any', ['c-users'], 'on', 'In it'), rest()] },
    { ...release('partner', 'local', version), variants: onOff(),
      segments: [when(['context', 'groups', 'org', 'cohort_ids'], 'set contains any', ['c-orgs'], 'on', 'In it'), rest()] },
  ];
}

/** Some user that everybody can tell from the others; every tenth has odd characters in its ids. */
export function user(number) {
  const odd = number % 10 === 7 ? '?>~ÿ' : '';
  return {
    user_id: `u-${number}${odd}`,
    device_id: `d-${number}`,
    country: ['DE', 'US', 'São Tomé', 'FR'][number % 4],
    version: `2.${number % 20}.1`,
    groups: { org: [`org-${number % 5}`] },
    group_properties: { org: { [`org-${number % 5}`]: { seats: (number % 5) * 25 } } },
    user_properties: {
      plan: ['pro', 'free', '企業'][number % 3],
      email: number % 6 ? `p${number}@example.org` : `p${number}@example.com`,
      tags: [['a'], ['β', 'b'], ['x?>y'], []][number % 4],
      smile: '😀 "quoted" \\ <&>',
    },
  };
}

function release(key, evaluationMode, flagVersion, more = {}) {
  return { key, metadata: { deployed: true, evaluationMode, flagType: 'release', flagVersion, ...more } };
}

function split(key, mode, version, id, variants, more = {}) {
  return {
    ...release(key, mode, version, { flagType: 'experiment', ...more }),
    variants: { ...Object.fromEntries(variants.map((name) => [name, { key: name, value: name }])), off: OFF },
    segments: [bucketed(id, key, variants)],
  };
}

function bucketed(id, salt, variants) {
  const width = Math.ceil(42949673 / variants.length);
  const distributions = variants.map((variant, at) => ({ variant, range: [at * width, (at + 1) * width] }));
  return {
    bucket: { selector: ['context', 'user', id], salt: `salt of ${salt}`, allocations: [{ range: [0, 100], distributions }] },
    variant: 'off',
    metadata: { segmentName: 'All users' },
  };
}

function when(selector, op, values, variant, segmentName) {
  return { conditions: [[{ selector, op, values }]], variant, metadata: { segmentName } };
}

function rest() {
  return { variant: 'off', metadata: { segmentName: 'All Other Users' } };
}

function onOff() {
  return { on: { key: 'on', value: 'on' }, off: OFF };
}
