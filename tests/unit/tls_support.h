/* Certificates for the tests of TLS: keys, an authority, what it signs. Files in PEM format. */
#ifndef HASHTRIE_TESTS_UNIT_TLS_SUPPORT_H
#define HASHTRIE_TESTS_UNIT_TLS_SUPPORT_H

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#include "support/test.h"

enum { TEST_DAY_S = 24 * 3600 };

struct test_certificate {
    const char *names; /* As in the extension: "DNS:localhost,IP:127.0.0.1". */
    int first_day;     /* From today on. */
    int last_day;
    const char *issuer; /* File of the authority, its key included; NULL: signed by itself. */
};

static inline void add_extension(X509 *certificate, int kind, const char *value)
{
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, kind, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

static inline void read_issuer(const char *file, X509 **certificate, EVP_PKEY **key)
{
    FILE *input = fopen(file, "r");
    assert_non_null(input);
    *certificate = PEM_read_X509(input, NULL, NULL, NULL);
    *key = PEM_read_PrivateKey(input, NULL, NULL, NULL);
    assert_true(*certificate != NULL && *key != NULL);
    assert_int_equal(fclose(input), 0);
}

/* Writes certificate and key to `file`. */
static inline void make_certificate(const char *file, const struct test_certificate *wanted)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    X509 *issuer = certificate;
    EVP_PKEY *issuer_key = key;
    if (wanted->issuer != NULL) {
        read_issuer(wanted->issuer, &issuer, &issuer_key);
    }
    assert_int_equal(X509_set_version(certificate, 2), 1);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), random());
    X509_gmtime_adj(X509_getm_notBefore(certificate), (long)wanted->first_day * TEST_DAY_S - 60);
    X509_gmtime_adj(X509_getm_notAfter(certificate), (long)wanted->last_day * TEST_DAY_S);
    X509_NAME *name = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)file, -1, -1, 0);
    X509_set_issuer_name(certificate, X509_get_subject_name(issuer));
    X509_set_pubkey(certificate, key);
    add_extension(certificate, NID_basic_constraints,
                  wanted->issuer == NULL ? "critical,CA:TRUE" : "CA:FALSE");
    if (wanted->names != NULL) {
        add_extension(certificate, NID_subject_alt_name, wanted->names);
    }
    assert_true(X509_sign(certificate, issuer_key, EVP_sha256()) > 0);
    FILE *output = fopen(file, "w");
    assert_non_null(output);
    assert_int_equal(PEM_write_X509(output, certificate), 1);
    assert_int_equal(PEM_write_PrivateKey(output, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(fclose(output), 0);
    if (wanted->issuer != NULL) {
        X509_free(issuer);
        EVP_PKEY_free(issuer_key);
    }
    X509_free(certificate);
    EVP_PKEY_free(key);
}

#endif
