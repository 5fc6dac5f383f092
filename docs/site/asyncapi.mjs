// Validates an AsyncAPI document with the parser of AsyncAPI. Exit code 1: it is not valid.
import { Parser, fromFile } from "@asyncapi/parser";

const { document, diagnostics } = await fromFile(new Parser(), process.argv[2]).parse();
for (const { code, path, message } of diagnostics) console.log(`${code} at ${path.join(".")}: ${message}`);
console.log(document ? `valid: ${document.info().title()}` : "not valid");
process.exitCode = document ? 0 : 1;
