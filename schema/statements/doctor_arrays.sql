-- Expand 20 arrays side by side, as many as a batch of writes has.
SELECT count(*) FROM unnest(
  '{{1,2}}'::text::int[], '{{00000000-0000-0000-0000-000000000000,NULL}}'::text::uuid[],
  '{{a,b}}'::text::text[], '{{a,b}}'::text::text[], '{{2026-01-01,NULL}}'::text::timestamptz[],
  '{{1,2}}'::text::text[], '{{"\\\\x00",NULL}}'::text::bytea[],
  '{{00000000-0000-0000-0000-000000000000,NULL}}'::text::uuid[], '{{a,b}}'::text::text[],
  '{{a,b}}'::text::text[], '{{}}'::text::text[], '{{a,b}}'::text::text[],
  '{{a,b}}'::text::text[], '{{1,2}}'::text::bigint[], '{{1,2}}'::text::bigint[],
  '{{t,f}}'::text::bool[], '{{a,b}}'::text::text[], '{{a,b}}'::text::text[],
  '{{a,b}}'::text::text[], '{{1,2}}'::text::bigint[])
  AS t(ordinal, id, name, type, date, data, fingerprint, write, topic, headers, own, kind, entity, back,
    position, first, header, touch, key, expected)
WHERE t.ordinal IS NOT NULL
