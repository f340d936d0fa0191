// Checks custom resources against the schemas of their operators: Prometheus, cert-manager, Gateway API.
//
//   node crd.mjs MODULES FILE     MODULES: where npm put @kubernetes-models; FILE: a JSON object a line
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const [modules, file] = process.argv.slice(2);
const packages = {
  'monitoring.coreos.com/v1': '@kubernetes-models/prometheus-operator',
  'cert-manager.io/v1': '@kubernetes-models/cert-manager',
  'gateway.networking.k8s.io/v1': '@kubernetes-models/gateway-api',
};

/** What is wrong with the object, or undefined. */
async function problem(object) {
  const { apiVersion, kind } = object;
  const file = `${modules}/node_modules/${packages[apiVersion]}/${apiVersion}/index.js`;
  const { [kind]: Model } = await import(pathToFileURL(file));
  try {
    new Model(object).validate();
  } catch (error) {
    return error.message;
  }
}

const objects = readFileSync(file, 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line));
let failed = 0;
for (const object of objects) {
  const wrong = await problem(object);
  if (wrong) {
    failed += 1;
    console.log(`FAILED ${object.kind} ${object.metadata.name}: ${wrong}`);
  }
}
// What it must notice, or it looks at nothing.
const monitor = { apiVersion: 'monitoring.coreos.com/v1', kind: 'ServiceMonitor', metadata: { name: 'bad' } };
for (const endpoint of [{ port: 9 }, { port: 'admin', interval: 'often' }]) {
  if (!(await problem({ ...monitor, spec: { selector: {}, endpoints: [endpoint] } }))) {
    failed += 1;
    console.log(`FAILED a ServiceMonitor with ${JSON.stringify(endpoint)} passes`);
  }
}
console.log(`custom resources: ${objects.length} objects, ${failed} failed`);
process.exit(failed || !objects.length ? 1 : 0);
