SELECT
  CAST(p.PROBLEM_LIST_ID AS bigint)      AS problem_list_id,
  i.LINE                                 AS line,
  p.PAT_ID                               AS patient_id,
  i.CODE                                 AS code,
  'http://hl7.org/fhir/sid/icd-10-cm'    AS code_system,
  d.DX_NAME                              AS code_display,
  p.PROBLEM_STATUS_C                     AS status_code,
  p.DATE_OF_ENTRY                        AS recorded_at,
  CAST(p.RESOLVED_DATE AS date)          AS resolved_on
FROM PROBLEM_LIST p
JOIN EDG_CURRENT_ICD10 i ON i.DX_ID = p.DX_ID
JOIN CLARITY_EDG d ON d.DX_ID = p.DX_ID
WHERE p.DATE_OF_ENTRY < :interval_end
