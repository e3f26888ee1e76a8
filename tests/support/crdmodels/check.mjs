// Reads a JSON list of custom resources from stdin and prints a JSON list of what is wrong with them.
// Two looks: the validators know patterns, bounds and required fields; the types know which fields there are at all.
import path from "node:path";
import ts from "typescript";

const PACKAGES = { "keda.sh": "keda", "monitoring.coreos.com": "prometheus-operator" };

function moduleOf({ apiVersion, kind }) {
  const group = apiVersion.split("/")[0];
  return `@kubernetes-models/${PACKAGES[group]}/${apiVersion}/${kind}`;
}

async function validated(resource) {
  const models = await import(moduleOf(resource));
  try {
    new models[resource.kind](resource).validate();
    return [];
  } catch (error) {
    return [`${resource.kind} ${resource.metadata.name}: ${error.message}`];
  }
}

function typed(resources) {
  const lines = resources.map(
    (each, at) => `export const r${at}: import("${moduleOf(each)}").I${each.kind} = ${JSON.stringify(each)};`,
  );
  const file = path.join(import.meta.dirname, "resources.ts");
  const options = {
    noEmit: true,
    strict: true,
    skipLibCheck: true,
    types: [],
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
  };
  const host = ts.createCompilerHost(options);
  const { fileExists, readFile, getSourceFile } = host;
  host.fileExists = (name) => name === file || fileExists(name);
  host.readFile = (name) => (name === file ? lines.join("\n") : readFile(name));
  host.getSourceFile = (name, ...rest) =>
    name === file ? ts.createSourceFile(name, lines.join("\n"), ts.ScriptTarget.ES2022) : getSourceFile(name, ...rest);
  return ts.getPreEmitDiagnostics(ts.createProgram([file], options, host)).map((found) => {
    const line = found.file?.fileName === file ? found.file.getLineAndCharacterOfPosition(found.start).line : 0;
    const { kind, metadata } = resources[line];
    return `${kind} ${metadata.name}: ${ts.flattenDiagnosticMessageText(found.messageText, " ")}`;
  });
}

let text = "";
for await (const part of process.stdin) text += part;
const resources = JSON.parse(text);
const problems = (await Promise.all(resources.map(validated))).flat();
console.log(JSON.stringify([...problems, ...typed(resources)]));
